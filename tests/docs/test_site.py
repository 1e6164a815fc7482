"""`make site`: every page of the documentation, as files that a browser opens from the disk, with nothing from another host."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from daemon import ROOT, pages

TOOLS = ROOT / "packaging" / "site"


def copied(tree: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOLS / "pages.py"), str(tree), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def built(folder: Path, target: Path) -> subprocess.CompletedProcess[str]:
    options = ["-q", "-W", "--keep-going", "-c", str(TOOLS), "-d", str(target.with_name("doctrees"))]
    command = [sys.executable, "-m", "sphinx", *options, str(folder), str(target)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=280, check=False, env={**os.environ, "NO_COLOR": "1"}
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("furo") is None and os.environ.get("CI") != "true":
        pytest.skip("needs pip install -e .[docs]")
    folder = tmp_path_factory.mktemp("site")
    done = copied(ROOT, folder / "pages")
    assert done.returncode == 0, done.stderr
    done = built(folder / "pages", folder / "html")
    assert done.returncode == 0, done.stderr
    return folder / "html"


class Elements(HTMLParser):
    """What a page links to, what it loads, and the ids in it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.ids: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.ids.add(str(given["id"]))
        for name in ("src", "href"):
            if target := given.get(name):
                (self.links if tag == "a" else self.loaded).add(target)


def test_every_page_is_there_and_loads_nothing_from_elsewhere(site: Path) -> None:
    found = {path.parent.relative_to(site): Elements(path) for path in site.rglob("index.html")}
    missing = [page for page in pages() if page.name != "README.md" and not _there(site, page)]
    assert missing == []
    for folder, page in found.items():
        for target in page.loaded | page.links:
            if re.match(r"[a-z]+:", target):
                assert target not in page.loaded, f"{folder} loads {target}"
                continue
            name = target.split("#")[0].split("?")[0]
            assert not name or (site / folder / name).is_file(), f"{folder}: {target}"


def _there(site: Path, page: Path) -> bool:
    inside = page.relative_to(ROOT)
    parts = inside.with_suffix("").parts
    return (site / Path(*(parts[1:] if parts[0] == "docs" else parts)) / "index.html").exists()


def test_an_alarm_leads_to_its_place_in_the_site(site: Path) -> None:
    groups = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        folder, _, anchor = rule["annotations"]["runbook_url"].removeprefix("https://wafermon.example/").partition("#")
        assert anchor in Elements(site / folder / "index.html").ids, rule["alert"]


def test_a_link_that_leads_nowhere_ends_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/README.md").write_text("# All\n\n## Begin\n\n[one](one.md), [two](two.md)\n")
    (tmp_path / "docs/one.md").write_text("# One\n\n```\n[code](is-none.md)\n```\n")
    done = copied(tmp_path, tmp_path / "pages")
    assert done.returncode == 1
    assert done.stderr == "docs/README.md: two.md is not there\n"


def test_a_heading_that_is_not_there_ends_the_build(site: Path, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/README.md").write_text("# All\n\n## Begin\n\n[one](one.md#first), [it](one.md#second)\n")
    (tmp_path / "docs/one.md").write_text("# One\n\n## First\n\nA line.\n")
    assert copied(tmp_path, tmp_path / "pages").returncode == 0
    done = built(tmp_path / "pages", tmp_path / "html")
    assert done.returncode == 1
    assert re.findall(r"WARNING: (.*)", done.stderr) == [
        "local id not found in doc 'one/index': 'second' [myst.xref_missing]"
    ]
