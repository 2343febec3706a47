"""The page's files, below a name that changes with their content, so that a browser keeps them."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
import re
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from monitor.web.http.compression import accepts_gzip

__all__ = ["PageFiles", "lean", "load", "manifest", "page", "version", "with_version"]

_FOREVER = "public, max-age=31536000, immutable"
_LINK = re.compile(r'((?:href|src)=")static/')
_NAME = re.compile(r"v-[0-9a-f]{12}")
# What a browser needs not: the indentation of a line, and comments that have lines of their own.
_ASIDE = re.compile(r"^[ \t]*(?://.*|/\*(?:.|\n)*?\*/[ \t]*$)?", re.MULTILINE)


class PageFiles(StaticFiles):
    """The folder ``static``; no path leads out of it.

    Below the current version's name a file is kept for good, and served from memory, compressed
    once, without comments. Below another one there is nothing: a page that is open during an
    upgrade must not mix its modules with new ones. Without such a name a file is as it was written,
    and kept, too, but revalidated each time.
    """

    def __init__(self) -> None:
        super().__init__(packages=[("monitor.web", "static")])

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return the file of a path, or 304 if the client has it already."""
        name, _, rest = path.partition("/")
        if _NAME.fullmatch(name) is None:
            found = await super().get_response(path, scope)
            found.headers["cache-control"] = "no-cache"
            return found
        if name != version():
            raise HTTPException(404, "this file is of another version of the page")
        return _kept(rest, Headers(scope=scope))


def load() -> None:
    """Read and compress all files, so that no request waits for a disk."""
    page()
    manifest()
    for path in _files():
        _squeezed(path)


@cache
def version() -> str:
    """Return the name of the files' content: another content, another name."""
    digest = hashlib.blake2b(digest_size=6)
    for name, content in sorted(_files().items()):
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


def lean(text: str) -> str:
    """Return a module or style sheet without comments and indentation.

    Lines keep their numbers. No string of theirs may have more than one line.
    """
    return _ASIDE.sub(lambda found: "\n" * found[0].count("\n"), text)


def _kept(path: str, asked: Headers) -> Response:
    content = _files().get(path)
    if content is None:
        raise HTTPException(404)
    media_type = mimetypes.guess_type(path)[0] or "application/octet-stream"
    headers = {"cache-control": _FOREVER, "etag": f'W/"{version()}"', "vary": "accept-encoding"}
    if headers["etag"] in asked.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    squeezed = _squeezed(path)
    if len(squeezed) < len(content) and accepts_gzip(asked.get("accept-encoding", "")):
        return Response(
            squeezed, headers=headers | {"content-encoding": "gzip"}, media_type=media_type
        )
    return Response(content, headers=headers, media_type=media_type)


@cache
def _squeezed(path: str) -> bytes:
    return gzip.compress(_files()[path], mtime=0)


@cache
def _files() -> dict[str, bytes]:
    return dict(_contents(_folder()))


def _folder() -> Traversable:
    return files("monitor.web").joinpath("static")


def _contents(folder: Traversable, prefix: str = "") -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for each in folder.iterdir():
        if each.is_dir():
            found += _contents(each, f"{prefix}{each.name}/")
        else:
            content = each.read_bytes()
            if each.name.endswith((".js", ".css")):
                content = lean(content.decode()).encode()
            found.append((prefix + each.name, content))
    return found
