"""The pages as Sphinx wants them: ``pages.py TREE FOLDER`` writes a copy of all that is written for people to FOLDER.

`docs/operations.md` becomes `operations/index.md`, so that the site has `operations/#anchor`, where the alarms' runbook_url leads, from
a web server and from the disk alike. Links between pages, and to files of the tree, are rewritten. The sections of `docs/README.md` become
those of the sidebar, in their order.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

FOLDERS = ("docs", "sdk", "examples", "deploy")
LINK = re.compile(r"(!?\[(?:[^\]\[]|\[[^\]]*\])*\])\(([^)#\s]*)(#[^)\s]*)?\)")
CODE = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)


def pages(tree: Path) -> list[Path]:
    """All pages, relative to the tree."""
    found = [*tree.glob("*.md"), *(page for folder in FOLDERS for page in (tree / folder).rglob("*.md"))]
    below = (page.relative_to(tree) for page in found)
    return sorted(page for page in below if not {"node_modules", "build", "target"} & set(page.parts))


def place(page: Path) -> Path:
    """Where a page is in the site, relative to its root. Files that are no pages stay where they are below `docs`."""
    if page == Path("README.md"):
        return Path("readme/index.md")
    inside = Path(*page.parts[1:]) if page.parts[0] == "docs" else page
    if page.suffix != ".md":
        return inside
    return (inside.parent if page.name == "README.md" else inside.with_suffix("")) / "index.md"


class Site:
    """The copies that are made of one tree."""

    def __init__(self, tree: Path, folder: Path) -> None:
        self.tree, self.folder = tree, folder
        self.pages = pages(tree)
        self.missing: list[str] = []

    def write(self) -> None:
        """Raises SystemExit where a link leads nowhere."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for page in self.pages:
            text = self._linked((self.tree / page).read_text(encoding="utf-8"), page)
            if page == Path("docs/README.md"):
                text += self._sidebar()
            target = self.folder / place(page)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        if self.missing:
            raise SystemExit("\n".join(self.missing))

    def _linked(self, text: str, page: Path) -> str:
        """The text with its links as they are in the site; code stays as it is."""
        parts, at = [], 0
        for code in CODE.finditer(text):
            parts += [self._rewritten(text[at : code.start()], page), code[0]]
            at = code.end()
        return "".join([*parts, self._rewritten(text[at:], page)])

    def _rewritten(self, text: str, page: Path) -> str:
        def one(link: re.Match[str]) -> str:
            words, target, anchor = link[1], link[2], link[3] or ""
            if not target or target.startswith(("http:", "https:", "mailto:")):
                return link[0]
            aim = Path(os.path.normpath(page.parent / target))
            if (self.tree / aim).is_dir():
                if not (self.tree / aim / "README.md").exists():
                    return words[1:-1]  # a folder of the sources, which the site does not have
                aim /= "README.md"
            if not (self.tree / aim).is_file():
                self.missing.append(f"{page}: {target} is not there")
                return link[0]
            if aim not in self.pages:
                copy = self.folder / place(aim)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(self.tree / aim, copy)
            return f"{words}({os.path.relpath(place(aim), place(page).parent)}{anchor})"

        return LINK.sub(one, text)

    def _sidebar(self) -> str:
        """A section of the sidebar for each of the pages' overview; what it does not name comes last."""
        text = (self.tree / "docs/README.md").read_text(encoding="utf-8")
        seen, sections = {Path("docs/README.md")}, []
        for section in text.split("\n## ")[1:]:
            title, _, body = section.partition("\n")
            aims = [Path(os.path.normpath(Path("docs") / target)) for _, target, _ in LINK.findall(body)]
            entries = [aim for aim in dict.fromkeys(aims) if aim in self.pages and aim not in seen]
            seen.update(entries)
            sections.append((title, entries))
        sections.append(("More", [page for page in self.pages if page not in seen]))
        return "".join(
            f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n"
            + "".join(f"{place(page).with_suffix('')}\n" for page in entries)
            + "```\n"
            for title, entries in sections
            if entries
        )


if __name__ == "__main__":
    Site(Path(sys.argv[1]), Path(sys.argv[2])).write()
