"""The page's files, read once and kept in memory, plain and compressed."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from fastapi import Request, Response

from monitor.web.http.answers import conditional

__all__ = ["StaticFile", "StaticFiles"]

_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file, its media type and its ETag."""

    content: bytes
    compressed: bytes
    media_type: str
    etag: str

    @classmethod
    def of(cls, content: bytes, media_type: str) -> StaticFile:
        """Compress ``content``, and compute its ETag."""
        digest = hashlib.blake2b(content, digest_size=9).hexdigest()
        return cls(content, gzip.compress(content, 9, mtime=0), media_type, f'"{digest}"')

    def response(self, request: Request) -> Response:
        """Return the file as a response, compressed if the client accepts that."""
        headers = {"vary": "accept-encoding"}
        body = self.content
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["content-encoding"] = "gzip"
            body = self.compressed
        return conditional(
            request,
            body,
            self.media_type,
            etag=self.etag,
            cache_control="no-cache",
            headers=headers,
        )


class StaticFiles:
    """All files of the folder ``static``, by their paths in it."""

    def __init__(self) -> None:
        self._files: dict[str, StaticFile] = {}
        self._read(resources.files("monitor.web").joinpath("static"), "")

    def get(self, path: str) -> StaticFile | None:
        """Return a file; no path leads out of the folder."""
        return self._files.get(path)

    def _read(self, folder: Traversable, prefix: str) -> None:
        for item in folder.iterdir():
            path = prefix + item.name
            if item.is_dir():
                self._read(item, f"{path}/")
                continue
            suffix = path[path.rfind(".") :]
            guessed = mimetypes.guess_type(path)[0] or "text/plain"
            self._files[path] = StaticFile.of(item.read_bytes(), _TYPES.get(suffix, guessed))
