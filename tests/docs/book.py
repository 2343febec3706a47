"""All pages, and where each one's commands run."""

from __future__ import annotations

from pathlib import Path

from tests.docs.fences import Fence, fences

__all__ = [
    "CHECKOUT",
    "DEBIAN",
    "NOT_INSTALLED",
    "ROOT",
    "all_fences",
    "fences_of",
    "pages",
    "text_of",
]

ROOT = Path(__file__).resolve().parents[2]

# Pages whose commands run in a checkout.
CHECKOUT = ("README.md",)
# Pages whose commands run in a booted Debian 13 with the package installed.
DEBIAN = (
    "docs/how-to/relay.md",
    "docs/how-to/relay-clients.md",
    "docs/how-to/probes.md",
    "docs/how-to/aggregation.md",
    "docs/how-to/logs.md",
    "docs/how-to/page.md",
    "docs/how-to/cluster.md",
    "docs/deploy/nginx.md",
    "docs/deploy/apache.md",
    "docs/deploy/tls.md",
    "docs/deploy/postgresql.md",
    "docs/deploy/kafka.md",
    "docs/deploy/instances.md",
    "docs/deploy/source.md",
    "docs/deploy/upgrade.md",
    "docs/deploy/debian.md",
)
# ... of which these begin without the package.
NOT_INSTALLED = (
    "docs/deploy/debian.md",
    "docs/deploy/source.md",
    "docs/deploy/upgrade.md",
)


def pages() -> list[str]:
    """Return the names of all pages, from the top of the tree."""
    found = sorted((ROOT / "docs").rglob("*.md"))
    top = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md"]
    return [*top, *(str(file.relative_to(ROOT)) for file in found)]


def text_of(page: str) -> str:
    """Return a page's text."""
    return (ROOT / page).read_text(encoding="utf-8")


def all_fences() -> list[Fence]:
    """Return the blocks of all pages."""
    return [fence for page in pages() for fence in fences(page, text_of(page))]


def fences_of(page: str) -> list[Fence]:
    """Return the blocks of one page."""
    return list(fences(page, text_of(page)))
