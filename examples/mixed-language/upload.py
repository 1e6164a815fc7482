"""Uploads the lots of a folder, one after the other: upload.py URL FOLDER

Prints a line a lot: what the web API says of it.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


def upload(url: str, lot: Path) -> dict[str, Any]:
    """The answer, whatever its status is."""
    request = urllib.request.Request(f"{url}/lots/{lot.stem}", data=lot.read_bytes(), method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        return dict(json.load(error))


def main(url: str, folder: str) -> None:
    for lot in sorted(Path(folder).glob("*.csv")):
        print(json.dumps({"lot": lot.stem, **upload(url, lot)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
