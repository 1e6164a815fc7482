"""A requirements file of the wheels in a folder, each with its hash: ``hashes.py PROJECT[EXTRAS] VERSION FOLDER``."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path


def requirements(project: str, version: str, folder: Path) -> str:
    """The project stands first, by its extras; every other wheel follows with the version that its name has."""
    own = project.partition("[")[0]
    lines = {}
    for wheel in sorted(folder.glob("*.whl")):
        name, its_version = wheel.name.split("-")[:2]
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        what = project if name == own else name.replace("_", "-")
        lines[name] = f"{what}=={its_version} \\\n    --hash=sha256:{digest}\n"
    if own not in lines or f"{project}=={version} " not in lines[own]:
        raise SystemExit(f"{folder} has no wheel of {own} {version}")
    return lines.pop(own) + "".join(lines.values())


if __name__ == "__main__":
    print(requirements(sys.argv[1], sys.argv[2], Path(sys.argv[3])), end="")
