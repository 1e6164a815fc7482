#!/usr/bin/env bash
# The demonstration: a sidecar, real programs in several languages, and what became of their messages.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
examples=$root/examples

usage() {
  cat <<END
examples/run_demo.sh [--app perl|mixed|science|all] [--with-database] [--folder DIR]

Starts a sidecar on free ports, runs the example applications, shows how their jobs go on and what landed in each
backend, and stops everything again. It installs what is missing: a virtual environment, and Debian packages.

  --app NAME        perl     lots of wafers from file to database: four Perl programs and a queue on disk
                    mixed    a Python web API that has Perl and C work for it; where the languages are installed,
                             with a front in Node.js, checks in Java and maps in Go
                    science  an analysis in R, a training in Python, an inference in C
                    all      the three of them
                    Without it: perl, and those of the others whose languages are installed.
  --with-database   starts a PostgreSQL of its own, and stores there what the routes send to a database
  --folder DIR      where all files go; it is begun anew each time. Else wafermon-data/demo

The environment's VENV names another virtual environment than .venv.
END
}

wrong_usage() { usage >&2; exit 2; }
fail() { echo "run_demo.sh: $*" >&2; exit 1; }
heading() { printf '\n== %s\n\n' "$*"; }

apps='' with_database='' data=$root/wafermon-data/demo
while [ $# -gt 0 ]; do
  case $1 in
    --app) apps=${2:-nothing}; shift ;;
    --with-database) with_database=yes ;;
    --folder) [ -n "${2:-}" ] || wrong_usage; data=$2; shift ;;
    --help|-h) usage; exit ;;
    *) wrong_usage ;;
  esac
  shift || wrong_usage
done
venv=$(realpath -ms "${VENV:-$root/.venv}")
data=$(realpath -m "$data")
python=$venv/bin/python

# --- what must be there: has_X says whether it is, packages[X] are Debian's that bring it ---------------------------

has_venv()     { [ -x "$python" ] || python3 -c 'import ensurepip, venv' 2>/dev/null; }
has_perl()     { perl -MJSON::PP -MDigest::SHA -MTime::HiRes -MDBD::SQLite -e 1 2>/dev/null; }
has_compiler() { command -v gcc && command -v make && [ -e /usr/include/stdio.h ]; } >/dev/null
has_r()        { Rscript -e 'library(R6); library(jsonlite)'; } >/dev/null 2>&1
has_postgres() { ls /usr/lib/postgresql/*/bin/initdb; } >/dev/null 2>&1
declare -A packages=(
  [venv]="python3-venv"
  [perl]="perl libdbd-sqlite3-perl"
  [compiler]="gcc libc6-dev make"
  [r]="r-base-core r-cran-r6 r-cran-jsonlite"
  [postgres]="postgresql"
)

need() {
  local what missing=()
  for what; do
    # shellcheck disable=SC2206  # several words are meant
    "has_$what" || missing+=(${packages[$what]})
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || fail "please install what Debian has as: ${missing[*]}"
  local as=() said
  [ "$(id -u)" = 0 ] || as=(sudo)
  echo "installing ${missing[*]}"
  said=$("${as[@]}" sh -c 'apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"' \
    apt-get "${missing[@]}" 2>&1) || fail "apt-get could not install them: $said"
}

case $apps in
  all) apps="perl mixed science" ;;
  perl|mixed|science) ;;
  "")
    apps=perl
    if has_compiler; then
      apps+=" mixed"
      if has_r; then apps+=" science"; fi
    fi
    ;;
  *) wrong_usage ;;
esac
needs=(venv)
for app in $apps; do
  case $app in
    perl) needs+=(perl) ;;
    mixed) needs+=(perl compiler) ;;
    science) needs+=(compiler r) ;;
  esac
done
[ -z "$with_database" ] || needs+=(postgres)
mapfile -t needs < <(printf '%s\n' "${needs[@]}" | sort -u)
need "${needs[@]}"

extra=${with_database:+[timescaledb]}
has_wafermon() {
  cd / && "$venv/bin/twistd" wafermon --help && "$python" -c "import wafermon.daemon.sidecar${with_database:+, txpostgres}"
} >/dev/null 2>&1
if ! (has_wafermon); then
  [ -x "$python" ] || python3 -m venv "$venv"
  echo "installing wafermon into $venv"
  "$venv/bin/pip" install -q --disable-pip-version-check -e "$root$extra"
fi

# --- a scratch folder, and what runs in it ------------------------------------------------------------------------

if [ -e "$data" ] && [ ! -e "$data/.wafermon-demo" ] && [ -n "$(ls -A "$data")" ]; then
  fail "$data is there already, and is no folder of the demonstration"
fi
rm -rf "$data"
mkdir -p "$data/spill"
touch "$data"/{.wafermon-demo,programs.log,sidecar.log}
cd "$data"

sidecar='' database='' database_dir='' running=''
end() {   # the process $1, by the signal $2
  [ -n "$1" ] || return 0
  kill "-$2" "$1" 2>/dev/null || true
  wait "$1" 2>/dev/null || true
}
stop() {
  end "$running" TERM
  end "$sidecar" TERM
  end "$database" INT
  running='' sidecar='' database=''
  [ -z "$database_dir" ] || rm -rf "$database_dir"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# A PostgreSQL that nobody else can reach: no port, and a socket in a folder of its own. It does not run as root.
start_database() {
  local bin as=()
  bin=$(dirname "$(ls /usr/lib/postgresql/*/bin/initdb | sort -V | tail -n 1)")
  database_dir=$(mktemp -d /tmp/wafermon-demo.XXXXXX)
  if [ "$(id -u)" = 0 ]; then
    as=(setpriv --reuid=postgres --regid=postgres --init-groups)
    chown postgres: "$database_dir"
  fi
  (cd / && "${as[@]}" "$bin/initdb" -D "$database_dir/data" -U wafermon --auth=trust --no-sync \
    --encoding=UTF8 --locale=C.UTF-8) >database.log 2>&1   # whatever the caller's locale is
  (cd / && exec "${as[@]}" "$bin/postgres" -D "$database_dir/data" -k "$database_dir" -c listen_addresses= -c fsync=off) \
    >>database.log 2>&1 &
  database=$!
  until "$bin/pg_isready" -q -h "$database_dir"; do
    kill -0 "$database" 2>/dev/null || { cat database.log >&2; fail "the database did not start"; }
    sleep 0.1
  done
  "$bin/createdb" -h "$database_dir" -U wafermon wafermon
  export WAFERMON_DSN="postgresql://wafermon@/wafermon?host=$database_dir"
  echo "The database is process $database; its socket is in $database_dir."
}

start_sidecar() {
  config=$examples/sidecar-config-files.yaml
  [ -z "$with_database" ] || config=$examples/sidecar-config.yaml
  "$venv/bin/twistd" -n --pidfile= wafermon --config "$config" >sidecar.log 2>&1 &
  sidecar=$!
  until grep -q "is ready" sidecar.log; do
    kill -0 "$sidecar" 2>/dev/null || { cat sidecar.log >&2; fail "the sidecar did not start"; }
    sleep 0.05
  done
  echo "The sidecar is process $sidecar. SDKs: $WAFERMON_URL, people: $WAFERMON_HTTP. Its configuration: $config"
}

# Nothing of the caller's environment may tell the SDKs something else.
unset "${!WAFERMON_@}" OTEL_SERVICE_NAME TRACEPARENT
read -r WAFERMON_PORT WAFERMON_HTTP_PORT < <("$python" -c '
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(each.getsockname()[1] for each in sockets))')
export WAFERMON_PORT WAFERMON_HTTP_PORT WAFERMON_DATA=$data WAFERMON_NFS=$data/nfs
export WAFERMON_URL=tcp://127.0.0.1:$WAFERMON_PORT WAFERMON_SPILL_DIR=$data/spill PYTHON=$python
export WAFERMON_HTTP=http://127.0.0.1:$WAFERMON_HTTP_PORT
wafermon() { "$venv/bin/wafermon" "$@"; }

[ -z "$with_database" ] || start_database
start_sidecar

# --- the applications ---------------------------------------------------------------------------------------------

make_lots() { "$python" "$examples/lots/generate.py" "$data/lots/$1" "${@:2}"; }

# Run one application, and show meanwhile how its jobs go on.
run_app() {
  local name=$1 folder=$2
  heading "$name: running"
  "$examples/$folder/run" "$data/lots/$name" "$data/$name" 2>>programs.log &
  running=$!
  while sleep 0.7; kill -0 "$running" 2>/dev/null; do
    wafermon jobs --limit 10
    echo
  done
  local app=$running
  running=''
  wait "$app" || { tail -n 20 programs.log >&2; fail "$name has failed"; }
}

export LOT_EVERY=0.4   # seconds between two lots that are delivered, so that there is something to watch
jobs=0
shown=()   # whose traces are shown: the seed of the lots makes the same ones good and faulty each time
for app in $apps; do
  case $app in
    perl)
      make_lots perl --lots 12
      run_app perl perl-app
      jobs=$((jobs + 12)) shown+=(lot-N26A002 lot-N26A010_2)
      ;;
    mixed)
      make_lots mixed --lots 5 --prefix N26B --faults short_row:1
      run_app mixed mixed-language
      jobs=$((jobs + 5)) shown+=(upload-N26B002)
      ;;
    science)
      make_lots science --lots 8 --prefix N26C --faults ""
      run_app science data-science
      jobs=$((jobs + 1)) shown+=(yield-model)
      ;;
  esac
done

# --- what became of it --------------------------------------------------------------------------------------------

status=0
heading "All jobs: wafermon jobs"
wafermon jobs
for job in "${shown[@]}"; do
  heading "One of them: wafermon trace $job"
  wafermon trace "$job"
done
heading "What was expected, and how that is: wafermon schedules"
wafermon schedules
heading "What landed in each backend, in messages"
"$python" "$examples/landed.py" "$data" programs.log --jobs "$jobs" ${WAFERMON_DSN:+--dsn "$WAFERMON_DSN"} || status=1
heading "The sidecar: wafermon status"
wafermon status
heading "Did everything arrive? wafermon receipt, for each job"
echo "ROUTED differs from backend to backend, and from what was received, because the routes say so: a rule sends to the
backends that it names, and the first rule that matches decides. That is no loss. STORED has to be the same as ROUTED."
for job in $(wafermon jobs --json --limit 1000 | "$python" -c 'import json, sys; print(*sorted(job["job_id"] for job in json.load(sys.stdin)))'); do
  echo
  wafermon receipt "$job" --wait 60s || status=1
done
case " $apps " in
  *" perl "*)
    heading "The past: wafermon runs lot-N26A002, the runs of one kind of job"
    wafermon runs lot-N26A002
    heading "Two of them beside each other: wafermon compare lot-N26A002 lot-N26A005"
    wafermon compare lot-N26A002 lot-N26A005
    ;;
esac
heading "The routes, in $config"
sed -n '/^routes:/,/^[^ r]/p' "$config"
stop

echo
echo "The files are in $data: files/, nfs/ and history/ (the backends), journal/, lots/, perl/wafers.db, programs.log, sidecar.log"
[ -z "$with_database" ] || echo "The database is gone, and its folder with it."
exit "$status"
