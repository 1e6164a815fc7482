# What builds for one release of Debian: a system in build/chroots/RELEASE-build with a compiler and its Python's tools, and the last
# commit in /src. Source it from the tree's root, as root.
#
#   builder RELEASE           makes it where it is not there; its path is in $root
#   extras                    the extras of pyproject.toml that a running sidecar may need, with commas between
#   VERSION                   that of the sources
. tests/chroots.sh
VERSION=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' wafermon/__init__.py)
export SOURCE_DATE_EPOCH
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)

builder() {
  root=$chroots/$1-build
  if [ ! -e "$root.ready" ]; then
    copy "$1" build
    within "$root" 'apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv python3-dev gcc libc6-dev binutils file >/dev/null &&
      python3 -m venv /opt/tools && /opt/tools/bin/pip install -q --disable-pip-version-check build wheel "setuptools>=77" pip-tools'
    touch "$root.ready"
  fi
  rm -rf "$root/src"
  git clone -q --no-hardlinks . "$root/src"
}

# Those that only tests, readers of archives and benchmarks need have names of their own; each other one belongs to the product.
extras() {
  python3 - <<'PYTHON'
import re, pathlib
text = pathlib.Path("pyproject.toml").read_text()
section = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
names = re.findall(r"^([a-z0-9_-]+) = \[", section, re.MULTILINE)
print(",".join(name for name in names if name not in {"test", "readers", "benchmarks", "recipes", "docs", "release"}))
PYTHON
}
