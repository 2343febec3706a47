"""Compresses answers for clients that ask for it."""

from __future__ import annotations

import gzip
import re
from functools import partial
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monitor.files.threads import call_aside

__all__ = ["Compression", "accepts_gzip"]

# A shorter answer would hardly get shorter.
_LEAST_BYTES = 400
# What takes less than a thread would.
_AT_ONCE_BYTES = 8192
# Most of what the higher levels save, in a fraction of the time.
_LEVEL = 4
_COMPRESSIBLE = re.compile(
    r"(text/|application/((.+\+)?json|openmetrics-text|javascript)|image/svg)"
)


class Compression:
    """Compresses the bodies of an application's answers with gzip, long ones in a thread.

    Only whole bodies: one that comes in pieces is passed on as it is.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        accepted = b",".join(
            value for key, value in scope["headers"] if key.lower() == b"accept-encoding"
        )
        sender = _Sender(send, gzips=accepts_gzip(accepted.decode("latin-1")))
        await self._app(scope, receive, sender)


class _Sender:
    def __init__(self, send: Send, *, gzips: bool) -> None:
        self._send = send
        self._gzips = gzips
        self._start: Any = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        start, self._start = self._start, None
        if start is None:
            await self._send(message)
            return
        body = message.get("body", b"")
        headers = list(start.get("headers", ()))
        by_name = {key.lower(): value.decode("latin-1") for key, value in headers}
        fits = (
            start["status"] == 200
            and not message.get("more_body", False)
            and len(body) >= _LEAST_BYTES
            and b"content-encoding" not in by_name
            and _COMPRESSIBLE.match(by_name.get(b"content-type", "")) is not None
        )
        if fits:
            headers = _varying(headers)
        if fits and self._gzips:
            squeeze = partial(gzip.compress, body, _LEVEL, mtime=0)
            body = squeeze() if len(body) <= _AT_ONCE_BYTES else await call_aside(squeeze)
            headers = [_of_encoded(key, value, len(body)) for key, value in headers]
            headers.append((b"content-encoding", b"gzip"))
            message = {**message, "body": body}
        await self._send({**start, "headers": headers})
        await self._send(message)


def _varying(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return headers that say that the answer depends on Accept-Encoding."""
    others = [(key, value) for key, value in headers if key.lower() != b"vary"]
    given = [value for key, value in headers if key.lower() == b"vary"]
    return [*others, (b"vary", b", ".join([*given, b"accept-encoding"]))]


def _of_encoded(key: bytes, value: bytes, length: int) -> tuple[bytes, bytes]:
    if key.lower() == b"content-length":
        return key, str(length).encode()
    # A strong validator would promise the same bytes (RFC 9110, 8.8.1).
    if key.lower() == b"etag" and not value.startswith(b"W/"):
        return key, b"W/" + value
    return key, value


def accepts_gzip(accepted: str) -> bool:
    """Return whether Accept-Encoding has gzip, other than with the weight 0 (RFC 9110, 12.5.3)."""
    for item in accepted.lower().split(","):
        coding, _, weight = item.partition(";")
        if coding.strip() == "gzip":
            return not re.fullmatch(r"q=0(\.0*)?", weight.replace(" ", ""))
    return False
