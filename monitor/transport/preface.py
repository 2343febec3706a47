"""The bytes before a handshake: a PROXY header, or a request that is not for a WebSocket.

Load balancers ask whether a server is up, by a HEAD, GET or OPTIONS, in HTTP/1.0 or 1.1. Pure.
"""

from __future__ import annotations

import re

from monitor.settings import Address
from monitor.transport.proxies import read_proxy_header

__all__ = ["MAX_BYTES", "Preface", "plain_answer"]

MAX_BYTES = 8192
_REQUEST = re.compile(rb"(GET|HEAD|OPTIONS) [^ \r\n]+ HTTP/1\.[01]\r?\n")
_UPGRADE = re.compile(rb"\r?\nupgrade[ \t]*:[^\r\n]*websocket", re.IGNORECASE)
_END = re.compile(rb"\r?\n\r?\n")


class Preface:
    """Collects the first bytes, which may begin with a PROXY header if they are ``from_proxy``."""

    def __init__(self, *, from_proxy: bool) -> None:
        # The client that the proxy named.
        self.client: Address | None = None
        # The method of a request that is not for a WebSocket.
        self.plain_method = ""
        self._from_proxy = from_proxy
        self._data = b""

    @property
    def heard(self) -> bool:
        """Whether anything came but a whole PROXY header: with that alone load balancers check."""
        return self._from_proxy or bool(self._data)

    def take(self, data: bytes) -> bytes | None:
        """Return the bytes that follow the preface, or None while it is not over.

        Raises ValueError for a PROXY header that is not valid.
        """
        data = self._data = self._data + data
        if self._from_proxy:
            found = read_proxy_header(data)
            if found is None:
                return None
            self._from_proxy = False
            size, self.client = found
            data = self._data = data[size:]
        if not data or self._may_be_plain(data):
            # A body may follow in the same piece.
            end = _END.search(data, 0, MAX_BYTES)
            if end is None:
                return None if len(data) < MAX_BYTES else data
            head = data[: end.end()]
            request = _REQUEST.match(head)
            if request is not None and not _UPGRADE.search(head):
                self.plain_method = request[1].decode()
        return data

    @staticmethod
    def _may_be_plain(data: bytes) -> bool:
        line, newline, _ = data.partition(b"\n")
        if newline:
            return _REQUEST.match(data) is not None
        return any(
            method.startswith(line[: len(method)]) for method in (b"GET ", b"HEAD ", b"OPTIONS ")
        )


def plain_answer(method: str, *, available: bool) -> bytes:
    """Return the answer to a request that is not for a WebSocket."""
    text = b"This is a WebSocket server.\n" if available else b"Not available now.\n"
    status = b"200 OK" if available else b"503 Service Unavailable\r\nRetry-After: 5"
    head = (
        b"HTTP/1.1 %b\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n"
        b"Cache-Control: no-store\r\nConnection: close\r\n\r\n" % (status, len(text))
    )
    return head if method == "HEAD" else head + text
