"""Every command in the documentation runs: a page's ``sh`` blocks in order, in one shell, on a network of their own.

In a comment before a block:
    <!-- first: COMMANDS -->     are run before it, and not shown
    <!-- not run: REASON -->     the block is left out; the reason is for the reader of the page's source
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from daemon import ROOT, pages

BLOCK = re.compile(r"(?:^<!-- (first|not run): (.*?) -->\n)?^ *```sh\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
PREPARE = """set -eu
ip link set lo up
trap 'echo "it failed at line $LINENO of:"; cat -n "$0"' ERR
"""


def script(page: Path) -> str:
    """What the page tells its reader to type."""
    parts = []
    for kind, comment, block in BLOCK.findall(page.read_text()):
        if kind == "first":
            parts.append(comment + "\n")
        if kind != "not run":
            parts.append(block)
    return "".join(parts)


@pytest.mark.parametrize(
    "page", [page for page in pages() if script(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_commands_of_a_page_run(page: Path, tmp_path: Path) -> None:
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.fail("needs unshare and ip (Debian: util-linux, iproute2)")
    tree = tmp_path / "wafermon"
    shutil.copytree(
        ROOT,
        tree,
        ignore=shutil.ignore_patterns(
            ".*", "__pycache__", "wafermon-data", "*.egg-info", "build", "target", "node_modules"
        ),
    )
    (tmp_path / "commands").write_text(PREPARE + script(page))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WAFERMON_")}
    environ |= {
        "PATH": f"{Path(sys.executable).parent}:{environ['PATH']}",
        "HOME": str(tmp_path),
        "WAFERMON_SPILL_DIR": str(tmp_path / "spill"),
    }
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    done = subprocess.run(
        # The kernel ends whatever the page has started when its shell ends.
        ["unshare", *user, "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-E", "../commands"],
        cwd=tree,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_a_page_fails_where_a_command_does(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- not run: it would end everything -->\n```sh\nexit 1\n```\n\n<!-- first: A=b -->\n```sh\necho $A\n```\n"
    )
    assert script(page) == "A=b\necho $A\n"
