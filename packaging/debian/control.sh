# control VERSION: the package's control file. The Python is that of the release, since compiled modules are for one minor version.
control() {
  local size next minor
  minor=$(python3 -c 'import sys; print(sys.version_info.minor)')
  next=$((minor + 1))
  size=$(du -sk --exclude=DEBIAN /stage | cut -f1)
  cat <<CONTROL
Package: wafermon
Version: $1
Section: admin
Priority: optional
Architecture: $(dpkg --print-architecture)
Maintainer: the wafermon project <wafermon@localhost>
Installed-Size: $size
Depends: python3 (>= 3.$minor), python3 (<< 3.$next), init-system-helpers, systemd | systemd-standalone-sysusers, systemd | systemd-standalone-tmpfiles
Recommends: systemd
Suggests: prometheus, postgresql, bash-completion
Description: monitoring sidecar: logs, metrics, progress and spans, exactly once
 Programs on this machine hand their telemetry to wafermon by an SDK for
 Python, Perl, C, R, Java, Go or Node.js. It is acknowledged once it is on
 disk, correlated into jobs and traces, and delivered to files, databases
 and other backends.
 .
 The package has a Python environment of its own at /usr/lib/wafermon.
CONTROL
}
