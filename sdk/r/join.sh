#!/bin/sh
# Joins the parts in R/ to monitoring_sdk.R, the one file for source(), or to the file that is named (a whole path).
set -eu
cd "$(dirname "$0")"
target=${1:-monitoring_sdk.R}
{
  echo "# Joined from R/*.R by join.sh: edit those."
  echo
  first=yes
  for part in helpers json trace stream spill monitoring_sdk logger; do
    [ "$first" = yes ] || echo
    first=no
    cat "R/$part.R"
  done
} > "$target.new"
mv "$target.new" "$target"
