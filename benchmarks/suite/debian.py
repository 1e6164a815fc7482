"""Debian's rsyslog and syslog-ng, unpacked where nothing else finds them: nothing is installed, no service is started."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from suite.native import CACHE


def unpacked(package: str, program: str) -> tuple[Path, dict[str, str]]:
    """Where the package and what it needs beside this system is unpacked, and the environment that its programs need."""
    root = CACHE / package
    if not (root / program).exists():
        for needed in ("apt-get", "dpkg"):
            if shutil.which(needed) is None:
                raise SystemExit(
                    f"{package} is taken from Debian, and there is no {needed} here: leave it out by --only"
                )
        archives = root / "archives"
        (archives / "partial").mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["apt-get", "-y", "-qq", "--no-install-recommends", "--reinstall", "--download-only",
             "-o", f"Dir::Cache::archives={archives}", "-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root",
             "install", package],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        for archive in sorted(archives.glob("*.deb")):
            subprocess.run(["dpkg", "-x", str(archive), str(root)], check=True)
    libraries = {path.parent for path in root.rglob("lib*.so*")}
    return root, {"LD_LIBRARY_PATH": ":".join(sorted(map(str, libraries)))}


def version(package: str) -> str:
    """Of the unpacked package; empty where it is not there."""
    archives = sorted((CACHE / package / "archives").glob(f"{package}_*.deb"))
    if not archives:
        return ""
    shown = subprocess.run(["dpkg-deb", "-f", str(archives[-1]), "Version"], capture_output=True, text=True, check=True)
    return shown.stdout.strip()
