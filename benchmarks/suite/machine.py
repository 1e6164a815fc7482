"""Where it was measured: figures of one machine say nothing without it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from suite import debian

PACKAGES = ("wafermon", "twisted", "ujson", "msgspec", "psycopg2-binary")
PROGRAMS = {"cc": "--version", "perl": "-e print$^V", "Rscript": "--version"}


def describe(directory: Path) -> dict[str, str]:
    """The machine, its software and the disk that is written to, each in a few words."""
    found = {
        "CPU": first_after("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / (1 << 30):.0f} GiB",
        "virtual": said(["systemd-detect-virt", "--vm"]) or "unknown",
        "kernel": platform.release(),
        "disk": said(["findmnt", "-no", "FSTYPE,OPTIONS", "-T", str(directory)]),
        "system": first_after("/etc/os-release", "PRETTY_NAME", "="),
        "Python": platform.python_version(),
        "load before": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    found |= {name: debian.version(package) for name, package in PEERS.items()}
    found |= {name: said([name, option]) for name, option in PROGRAMS.items()}
    found["PostgreSQL"] = postgresql()
    return {name: words for name, words in found.items() if words}


PEERS = {"rsyslog": "rsyslog", "syslog-ng": "syslog-ng-core"}


def postgresql() -> str:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return said([str(found[-1]), "--version"]) if found else said(["postgres", "--version"])


def first_after(path: str, key: str, separator: str = ":") -> str:
    try:
        rows = Path(path).read_text().splitlines()
    except OSError:
        return ""
    row = next((row for row in rows if row.startswith(key)), "")
    return row.partition(separator)[2].strip().strip('"')


def said(command: list[str]) -> str:
    """The first line that a program prints; nothing where there is no such program."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return next(iter(done.stdout.splitlines()), "").strip()
