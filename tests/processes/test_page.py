"""The live page as a running sidecar serves it, and its parts that compute, in Node.js."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from daemon import ROOT
from served import Served


def test_a_browser_gets_the_page_and_all_that_it_loads(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        status, body = served.request("/", Accept="text/html,*/*;q=0.8")
        assert status == 200
        wanted = re.findall(r'(?:src|href)="(/page/[^"]+)"', body.decode())
        seen: set[str] = set()
        while wanted:
            path = wanted.pop()
            if path not in seen:
                seen.add(path)
                status, body = served.request(path)
                assert status == 200, path
                wanted += [f"/page/{name}" for name in re.findall(r'from "\./([^"]+)"', body.decode())]
        assert {"/page/main.mjs", "/page/trace.mjs", "/page/page.css"} <= seen
        assert served.request("/")[1].startswith(b"wafermon\n")
    assert "Traceback" not in served.log(), served.log()


def test_what_the_page_computes() -> None:
    if shutil.which("node") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no node: apt-get install nodejs")
    tests = sorted((ROOT / "tests/page").glob("*.test.mjs"))
    assert tests
    done = subprocess.run(["node", "--test", *tests], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
