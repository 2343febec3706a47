"""The page's files, below a name that changes with their content, so that a browser keeps them."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

__all__ = ["PageFiles", "manifest", "page", "version", "with_version"]

_FOREVER = "public, max-age=31536000, immutable"
_LINK = re.compile(r'((?:href|src)=")static/')
_NAME = re.compile(r"v-[0-9a-f]{12}")


class PageFiles(StaticFiles):
    """The folder ``static``; no path leads out of it.

    Below the current version's name a file is kept for good. Below another one there is nothing:
    a page that is open during an upgrade must not mix its modules with new ones. Without such a
    name a file is kept, too, but revalidated each time.
    """

    def __init__(self) -> None:
        super().__init__(packages=[("monitor.web", "static")])

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return the file of a path, or 304 if the client has it already."""
        name, _, rest = path.partition("/")
        named = _NAME.fullmatch(name) is not None
        if named and name != version():
            raise HTTPException(404, "this file is of another version of the page")
        found = await super().get_response(rest if named else path, scope)
        found.headers["cache-control"] = _FOREVER if named else "no-cache"
        return found


@cache
def version() -> str:
    """Return the name of the files' content: another content, another name."""
    digest = hashlib.blake2b(digest_size=6)
    for name, content in sorted(_contents(_folder())):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return f"v-{digest.hexdigest()}"


@cache
def page() -> bytes:
    """Return the live page, with links to the current version of its files."""
    return with_version(_folder().joinpath("index.html").read_text("utf-8")).encode()


@cache
def manifest() -> bytes:
    """Return the manifest, by which browsers install the page."""
    return _folder().joinpath("manifest.webmanifest").read_bytes()


def with_version(html: str) -> str:
    """Return a page whose links to ``static/`` lead to the current version."""
    return _LINK.sub(rf"\1static/{version()}/", html)


def _folder() -> Traversable:
    return files("monitor.web").joinpath("static")


def _contents(folder: Traversable, prefix: str = "") -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for each in folder.iterdir():
        if each.is_dir():
            found += _contents(each, f"{prefix}{each.name}/")
        else:
            found.append((prefix + each.name, each.read_bytes()))
    return found
