# Whom a reader of the package may write to: set MAINTAINER where you build your own.
maintainer=${MAINTAINER:-the wafermon project <wafermon@localhost>}

# control VERSION: the package's control file. The Python is that of the release, since compiled modules are for one minor version.
control() {
  local size next minor libc
  libc=$(getconf GNU_LIBC_VERSION | cut -d' ' -f2)
  minor=$(python3 -c 'import sys; print(sys.version_info.minor)')
  next=$((minor + 1))
  size=$(du -sk --exclude=DEBIAN /stage | cut -f1)
  cat <<CONTROL
Package: wafermon
Version: $1
Section: admin
Priority: optional
Architecture: $(dpkg --print-architecture)
Maintainer: $maintainer
Installed-Size: $size
Depends: python3 (>= 3.$minor), python3 (<< 3.$next), libc6 (>= $libc), systemd | systemd-standalone-sysusers, systemd | systemd-standalone-tmpfiles
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

# changelog VERSION SECONDS: Debian's own; what has changed in wafermon is in changelog.gz beside it.
changelog() {
  cat <<CHANGELOG
wafermon ($1) stable; urgency=medium

  * Built from this version's sources: changelog.gz says what is new.

 -- $maintainer  $(LC_ALL=C date -u -R -d "@$2")
CHANGELOG
}
