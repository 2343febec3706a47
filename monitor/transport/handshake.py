"""The WebSocket library's protocol for servers, with a shorter way for the usual handshake.

The library reads a request line by line and takes each header apart, which is a third of all that
the relay does for a client that comes back. What every browser and library sends is read at once
here; whatever is unusual or wrong is left to the library.
"""

from __future__ import annotations

import binascii
import re
from http import HTTPStatus

from websockets.datastructures import Headers
from websockets.exceptions import SecurityError
from websockets.http11 import Request, Response
from websockets.protocol import Protocol
from websockets.server import ServerProtocol
from websockets.utils import accept_key

__all__ = ["HandshakeProtocol"]

_USUAL = re.compile(
    rb"GET ([\x21-\x7e]+) HTTP/1\.1\r\n((?:[-!#$%&'*+.^_`|~0-9a-zA-Z]+:[\t\x20-\x7e]*\r\n)+)\r\n"
)
_MOST_BYTES = 4096
_MOST_HEADERS = 64
_CONNECTIONS = (["Upgrade"], ["upgrade"], ["keep-alive, Upgrade"])
_UPGRADES = (["websocket"], ["WebSocket"])
_SUBPROTOCOLS = re.compile(r"[-.\w]+(?:, ?[-.\w]+)*", re.ASCII)
_KEY_BYTES = 16
# Python's stand-ins for bytes that are not ASCII, as the letters of ISO 8859-1.
_BYTES = {0xDC00 + byte: byte for byte in range(0x80, 0x100)}


class HandshakeProtocol(ServerProtocol):
    """Offers no extensions and subprotocols; any origin may connect."""

    # The request that was taken at once.
    _taken: Request | None = None

    def take_request(self, data: bytes) -> bool:
        """Take a whole request, and nothing after it; return False if the library has to read it.

        Nothing may have been received before.
        """
        found = _USUAL.fullmatch(data) if len(data) <= _MOST_BYTES else None
        if found is None:
            return False
        lines = found[2].decode("ascii").split("\r\n")[:-1]
        headers = Headers()
        for line in lines:
            name, _, value = line.partition(":")
            headers[name] = value.strip(" \t")
        has_body = "Transfer-Encoding" in headers or "Content-Length" in headers
        if has_body or len(lines) > _MOST_HEADERS:
            return False
        # What follows are frames.
        self.parser.close()
        self.parser = Protocol.parse(self)
        next(self.parser)
        self._taken = Request(found[1].decode("ascii"), headers)
        self.events.append(self._taken)
        return True

    def process_request(self, request: Request) -> tuple[str, str | None, str | None]:
        """Check a request; see the library."""
        headers = request.headers
        keys = headers.get_all("Sec-WebSocket-Key")
        if (
            request is self._taken
            and headers.get_all("Connection") in _CONNECTIONS
            and headers.get_all("Upgrade") in _UPGRADES
            and headers.get_all("Sec-WebSocket-Version") == ["13"]
            and len(keys) == 1
            and len(headers.get_all("Origin")) <= 1
            and all(map(_SUBPROTOCOLS.fullmatch, headers.get_all("Sec-WebSocket-Protocol")))
            and _is_key(keys[0])
        ):
            return accept_key(keys[0]), None, None
        return super().process_request(request)

    def receive_data(self, data: bytes | bytearray) -> None:
        """Take what the client sent; see the library."""
        super().receive_data(data)
        error = self.handshake_exc
        # websockets 15 does not answer what newer versions answer.
        if error and isinstance(error.__cause__, SecurityError) and self.writes == [b""]:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            text = f"Failed to open a WebSocket connection: {error.__cause__}.\n"
            self.writes.insert(0, self.reject(status, text).serialize())

    def reject(self, status: int, text: str) -> Response:
        """Return a response that refuses a request; see the library."""
        # websockets 15 repeats a header's letters beyond ASCII in a form that it cannot send.
        return super().reject(status, text.translate(_BYTES))


def _is_key(text: str) -> bool:
    try:
        return len(binascii.a2b_base64(text, strict_mode=True)) == _KEY_BYTES
    except ValueError:
        return False
