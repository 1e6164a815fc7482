# Small Debian systems below build/chroots, for scripts that need a machine that has nothing yet. Source it from the tree's root, as root.
#
#   base RELEASE              Debian's smallest system with ca-certificates, made once: its path is in $root
#   copy RELEASE NAME         a copy of it as it was at first, at build/chroots/RELEASE-NAME: its path is in $root
#   within ROOT COMMAND       runs a command of bash there: its own processes, loopback as in Debian's /etc/hosts, and the environment's
#                             settings of proxies and certificates. OFFLINE=1: without any network
#
# What apt fetches is kept in build/chroots/RELEASE.archives, so that a second run needs no network.
chroots=$PWD/build/chroots
[ "$(id -u)" = 0 ] || { echo "$0: needs root, for debootstrap and chroot" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "$0: run this once: apt-get install debootstrap" >&2; exit 1; }

# Settings of proxies, certificates and package indexes: what an administrator would set up on a machine of this network.
settings() {
  env | grep -iE '^(https?|no|all|ftp)_proxy=|CERT|CA_BUNDLE|CA_CERTS|CAINFO|^PIP_(INDEX|EXTRA_INDEX|TRUSTED|DEFAULT_TIMEOUT|CERT)|^GOPROXY=|^GOSUMDB=|^npm_config_' || true
}

_bring() { # a file of this machine to the same place there
  [ ! -e "$1" ] || { mkdir -p "$root$(dirname "$1")"; cp -L "$1" "$root$1"; }
}

base() {
  local file
  root=$chroots/$1
  mkdir -p "$chroots" "$chroots/$1.archives"
  if [ ! -e "$root.ready" ]; then
    rm -rf "$root"
    debootstrap --variant=minbase --include=ca-certificates,git "$1" "$root" >"$root.debootstrap.log"
    touch "$root.ready"
  fi
  for file in /etc/resolv.conf /etc/pip.conf /root/.npmrc /root/.m2/settings.xml /root/.config/pip/pip.conf; do
    _bring "$file"
  done
  # Authorities of this network, for programs that have a store of their own too, as Java has.
  for file in /usr/local/share/ca-certificates/*.crt; do _bring "$file"; done
  cp -L /etc/apt/apt.conf.d/99* "$root/etc/apt/apt.conf.d/" 2>/dev/null || true
  printf '127.0.0.1\tlocalhost\n::1\t\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\tfresh\n' >"$root/etc/hosts"
}

copy() {
  base "$1"
  rm -rf "$root-$2"
  cp -a --reflink=auto "$root" "$root-$2"
  root=$root-$2
}

within() {
  local given
  mapfile -t given < <(settings)
  # shellcheck disable=SC2016  # expanded by the inner shell
  unshare --mount --pid --fork --kill-child --uts ${OFFLINE:+--net} -- bash -c '
    set -e
    root=$1 archives=$2 offline=$3 command=$4; shift 4
    hostname fresh
    [ -z "$offline" ] || ip link set lo up
    mount --make-rprivate /
    mount --bind "$root" "$root" # a mount point, as the root of a machine is
    mount -t proc proc "$root/proc"; mount -t sysfs sysfs "$root/sys"
    mount -t tmpfs -o mode=755 dev "$root/dev"
    for node in null zero full random urandom tty; do touch "$root/dev/$node"; mount --bind "/dev/$node" "$root/dev/$node"; done
    mkdir -p "$root/dev/pts" "$root/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"; ln -sf pts/ptmx "$root/dev/ptmx"
    mount -t tmpfs shm "$root/dev/shm"
    ln -sf /proc/self/fd "$root/dev/fd"; ln -sf fd/0 "$root/dev/stdin"; ln -sf fd/1 "$root/dev/stdout"; ln -sf fd/2 "$root/dev/stderr"
    mount --bind "$archives" "$root/var/cache/apt/archives"
    chroot "$root" update-ca-certificates --fresh >/dev/null 2>&1
    exec chroot "$root" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LANG=C.UTF-8 CI=true \
      DEBIAN_FRONTEND=noninteractive "$@" \
      bash -c "$command"
  ' - "$1" "$chroots/$(basename "$1" | sed 's/-.*//').archives" "${OFFLINE:-}" "$2" "${given[@]}"
}
