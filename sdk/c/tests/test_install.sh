#!/bin/sh
# `make install` into a folder; the example is built against it by pkg-config, shared and static, and run; only monitoring_* is exported.
set -eu
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
${MAKE:-make} -s install DESTDIR="$root" PREFIX=/opt/wafermon
export PKG_CONFIG_PATH="$root/opt/wafermon/lib/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$root" WAFERMON_SPILL_DIR="$root/spill" WAFERMON_URL=tcp://127.0.0.1:1
[ "$(pkg-config --modversion monitoring_sdk)" = "$(sed -n 's/^VERSION = //p' Makefile)" ]
lib="$root/opt/wafermon/lib"

cp example.c "$root/"
cd "$root"
${CC:-cc} -std=c99 -Wall -Wextra -Wpedantic -Werror example.c $(pkg-config --cflags --libs monitoring_sdk) -o shared
readelf -d shared | grep -q 'NEEDED.*libmonitoring_sdk\.so\.2\]'
${CC:-cc} -std=c99 example.c $(pkg-config --cflags monitoring_sdk) "$lib/libmonitoring_sdk.a" -pthread -o static
for program in shared static; do
    [ "$(LD_LIBRARY_PATH="$lib" ./$program example.c missing)" = "11 messages, left for the sidecar" ]
done
[ "$(cat spill/*.ldjson | wc -l)" = 22 ]

exported=$(nm -D --defined-only "$lib/libmonitoring_sdk.so" | awk '$2 ~ /[TDBR]/ {print $3}' | grep -v '^monitoring_' || true)
[ -z "$exported" ] || { echo "exported too: $exported" >&2; exit 1; }

cd - > /dev/null
${MAKE:-make} -s uninstall DESTDIR="$root" PREFIX=/opt/wafermon
[ -z "$(find "$root/opt" ! -type d)" ]
echo "installed, linked and run both ways"
