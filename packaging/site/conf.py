"""Sphinx reads the pages by MyST. Chosen since its search works from the disk, where other generators' need a server, and since a link to
a heading that is not there is a warning, and `make site` takes warnings for errors. Nothing on the pages comes from another host."""

import re
from pathlib import Path

project = "wafermon"
version = re.search(r'__version__ = "(.*)"', (Path(__file__).parents[2] / "wafermon/__init__.py").read_text())[1]
release = version
extensions = ["myst_parser"]
myst_heading_anchors = 4
myst_enable_extensions = ["strikethrough"]
html_theme = "furo"
html_title = f"wafermon {version}"
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
highlight_language = "none"
nitpicky = True
suppress_warnings = ["misc.highlighting_failure"]  # SQL of DuckDB, sessions of the protocol
