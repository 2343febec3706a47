"""How `make docs` builds these pages into build/docs: Sphinx with MyST Markdown."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from monitor import __version__

project = "recodex-monitor"
version = release = __version__
extensions = ["myst_parser"]
myst_heading_anchors = 3
html_theme = "alabaster"
# Nothing from another host.
html_theme_options = {"description": "Operational events, to those who watch them"}
# Links to files of the checkout, outside these pages, are for readers of the checkout.
suppress_warnings = ["myst.xref_missing"]
exclude_patterns = ["_build"]
