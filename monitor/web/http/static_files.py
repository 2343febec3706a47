"""The page's files: a browser keeps them, and revalidates them each time."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response
from starlette.staticfiles import StaticFiles

__all__ = ["PageFiles"]


class PageFiles(StaticFiles):
    """The folder ``static``; no path leads out of it."""

    def __init__(self) -> None:
        super().__init__(packages=[("monitor.web", "static")])

    def file_response(self, *args: Any, **options: Any) -> Response:
        """Return the file, or 304 if the client has it already."""
        found = super().file_response(*args, **options)
        found.headers["cache-control"] = "no-cache"
        return found
