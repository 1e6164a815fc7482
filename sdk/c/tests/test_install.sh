#!/bin/sh
# `make install` into a folder; the example is built against it by pkg-config, shared and static, and run; only monitoring_* is exported.
# `test_install.sh 1` is of TLS=1, with a second argument of ZLIB=1.
set -eu
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
make="${MAKE:-make} -s TLS=${1:-} ZLIB=${2:-}"
$make install DESTDIR="$root" PREFIX=/opt/wafermon
export PKG_CONFIG_PATH="$root/opt/wafermon/lib/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$root" WAFERMON_SPILL_DIR="$root/spill" WAFERMON_URL=tcp://127.0.0.1:1
[ "$(pkg-config --modversion monitoring_sdk)" = "$(sed -n 's/^VERSION = //p' Makefile)" ]
lib="$root/opt/wafermon/lib"

cp example.c "$root/"
cd "$root"
${CC:-cc} -std=c99 -Wall -Wextra -Wpedantic -Werror example.c $(pkg-config --cflags --libs monitoring_sdk) -o shared
readelf -d shared | grep -q 'NEEDED.*libmonitoring_sdk\.so\.2\]'
# A program that links the archive needs what that needs: pkg-config --static says it.
${CC:-cc} -std=c99 example.c $(pkg-config --static --cflags --libs monitoring_sdk | sed 's/-lmonitoring_sdk/-l:libmonitoring_sdk.a/') -o static
! readelf -d static | grep -q libmonitoring_sdk
[ "$(readelf -d "$lib/libmonitoring_sdk.so" | grep -c 'NEEDED.*libssl')" = "${1:-0}" ]
[ -z "${1:-}" ] || WAFERMON_URL=tls://127.0.0.1:1
for program in shared static; do
    [ "$(LD_LIBRARY_PATH="$lib" ./$program example.c missing 2> stderr)" = "11 messages, left for the sidecar" ]
    [ ! -s stderr ] || { cat stderr >&2; exit 1; }
done
[ "$(cat spill/*.ldjson | grep -vc '"type":"stats"')" = 22 ]

exported=$(nm -D --defined-only "$lib/libmonitoring_sdk.so" | awk '$2 ~ /[TDBR]/ && ($3 !~ /^monitoring_/ || $3 ~ /^(monitoring_tls|monitoring_zlib)_/) {print $3}')
[ -z "$exported" ] || { echo "exported too: $exported" >&2; exit 1; }

cd - > /dev/null
$make uninstall DESTDIR="$root" PREFIX=/opt/wafermon
[ -z "$(find "$root/opt" ! -type d)" ]
echo "installed, linked and run both ways"
