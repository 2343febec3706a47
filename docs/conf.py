"""How `make docs` builds these pages into build/docs: Sphinx with MyST Markdown."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from pygments.lexers.special import TextLexer
from sphinx.highlighting import lexers

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from monitor import __version__

project = "recodex-monitor"
version = release = __version__
extensions = ["myst_parser"]
myst_heading_anchors = 3
html_theme = "alabaster"
# Load nothing from another host.
html_theme_options = {"description": "Carries operational events to those who watch them"}
# Links to files outside these pages only work in a checkout.
suppress_warnings = ["myst.xref_missing"]
exclude_patterns = ["_build"]

# Code hosts draw these diagrams; here their source is shown.
lexers["mermaid"] = TextLexer()


def setup(app: Any) -> None:
    """Give the index a table of contents; on a code host its links are enough."""
    app.connect("source-read", _contents)


def _contents(app: Any, name: str, source: list[str]) -> None:
    if name == "index":
        pages = "\n".join(re.findall(r"\]\(([\w/.-]+)\.md\)", source[0]))
        source[0] += f"\n```{{toctree}}\n:hidden:\n:maxdepth: 1\n\n{pages}\n```\n"
