#!/usr/bin/env bash
# The demonstration: a sidecar, and three programs that take in, parse and load the measurements of three lots of wafers.
# Sets up what is missing first. `examples/run_demo.sh [FOLDER]`: FOLDER is begun anew each time.
# VENV names another virtual environment than .venv, in which wafermon is installed.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
venv=$(realpath -ms "${VENV:-$root/.venv}")
data=$(realpath -m "${1:-$root/wafermon-data/demo}")
job=job-4711

set_up() {
  if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    echo "installing python3-venv"
    local install='apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null'
    if [ "$(id -u)" = 0 ]; then sh -c "$install"; else sudo sh -c "$install"; fi
  fi
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
  echo "installing wafermon into $venv"
  "$venv/bin/pip" install -q --disable-pip-version-check -e "$root"
}
(cd / && "$venv/bin/twistd" wafermon --help >/dev/null 2>&1) || set_up

if [ -e "$data" ] && [ ! -e "$data/wafermon.yaml" ]; then
  echo "$data is there already, and is no folder of the demonstration" >&2
  exit 1
fi
rm -rf "$data"
mkdir -p "$data/work" "$data/spill"
cp "$root/examples/demo/wafermon.yaml" "$data"
cd "$data"

DEMO_PORT=$("$venv/bin/python" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
export DEMO_PORT
sidecar=
stop() {
  if [ -n "$sidecar" ]; then
    kill "$sidecar" 2>/dev/null || true
    wait "$sidecar" 2>/dev/null || true
  fi
}
trap stop EXIT
"$venv/bin/twistd" -n --pidfile= wafermon --config wafermon.yaml >sidecar.log 2>&1 &
sidecar=$!
until grep -q "Listening on" sidecar.log; do
  if ! kill -0 "$sidecar" 2>/dev/null; then
    cat sidecar.log >&2
    exit 1
  fi
  sleep 0.05
done
echo "The sidecar is process $sidecar and listens on 127.0.0.1:$DEMO_PORT."

export WAFERMON_URL=tcp://127.0.0.1:$DEMO_PORT WAFERMON_SPILL_DIR=$data/spill WAFERMON_TRACE_ID=$job
unset WAFERMON_SPAN_ID WAFERMON_SERVICE WAFERMON_TOKEN WAFERMON_BUFFER WAFERMON_DISABLED TRACEPARENT
export PYTHONPATH=$root/sdk/python${PYTHONPATH:+:$PYTHONPATH}
# Each program prints how many messages it handed to its SDK.
"$venv/bin/python" "$root/examples/demo/file_receiver.py" "$root/examples/demo/data" work >called
called=$(awk '{ sum += $1 } END { print sum }' called)
echo "$(wc -l <called) processes read $(ls work/*.csv | wc -l) files and sent $called messages."

status=0
"$venv/bin/python" "$root/examples/demo/show.py" files "$job" "$called" || status=1
stop
echo
echo "The data is in $data: files/ (one JSONL file a service), work/wafers.db, journal/, sidecar.log"
exit "$status"
