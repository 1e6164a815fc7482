#!/bin/sh
# R CMD build and check, which installs the package and runs its tests; a warning or a note counts as a failure.
set -eu
source=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"$source/join.sh" "$folder/joined.R"
cmp "$folder/joined.R" "$source/monitoring_sdk.R" || { echo "sdk/r/monitoring_sdk.R is not what is in R/: run sdk/r/join.sh"; exit 1; }
R CMD build "$source" > build.log 2>&1 || { cat build.log; exit 1; }
# No look at a repository: its dependencies are installed, and there may be no network.
export _R_CHECK_XREFS_REPOSITORIES_="" R_DEFAULT_INTERNET_TIMEOUT=5
R CMD check --no-manual monitoringsdk_*.tar.gz > check.log 2>&1 || { cat check.log monitoringsdk.Rcheck/tests/*.fail 2>/dev/null; exit 1; }
grep -q '^Status: OK' check.log || { cat check.log; exit 1; }
echo "built, checked, installed and tested as a package"
