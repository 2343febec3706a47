"""WebSockets on the HTTP server's port: a handler receives messages, and sends its own.

Uvicorn hands a connection over with its request. Its own ASGI bridge differs from version to
version and copies each message for each client; here a handler gets the connection itself.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from typing import Final, Protocol

from websockets.datastructures import Headers
from websockets.frames import Frame
from websockets.http11 import Request, Response

from monitor.tokens import ANYONE, Principal
from monitor.transport.frames import text_frame
from monitor.transport.websocket import WebSocketConnection
from monitor.web.http.access import Refusal, headers_by_name
from monitor.web.http.problems import MEDIA_TYPE, problem_body

__all__ = ["ClosedError", "WebSocket"]

logger = logging.getLogger("monitor.web")

_MAX_QUEUED_MESSAGES: Final = 4
# A message of this size is the only one that waits.
_LARGE_BYTES: Final = 256 * 1024
_PING_INTERVAL_S: Final = 20.0
_PONG_TIMEOUT_S: Final = 20.0


class ClosedError(Exception):
    """The connection is closed or closing; a handler may let it pass."""


class Owner(Protocol):
    """What a connection reports to: the part's open WebSockets."""

    def admit(self, socket: WebSocket, /) -> Refusal | None:
        """Return why the connection is refused, or None."""

    def accepted(self, socket: WebSocket, /) -> None:
        """The handshake is done: serve it."""

    def holds(self, socket: WebSocket, change: int, /) -> None:
        """The connection has this many more bytes of a message that is not complete."""

    def lost(self, socket: WebSocket, /) -> None:
        """The connection is lost."""


class WebSocket(WebSocketConnection):
    """One connection of a handler.

    Reading stops while a few messages wait for :meth:`receive`, and :meth:`send` waits while
    the client does not read, so a connection never holds more than a few messages and the
    transport's buffer.
    """

    principal: Principal = ANYONE
    path: str = ""
    headers: dict[str, str]

    def __init__(self, owner: Owner, *, max_message_bytes: int, client_stall: float) -> None:
        super().__init__(max_message_bytes=max_message_bytes)
        self.headers = {}
        self._owner = owner
        self._client_stall = client_stall
        self._messages: deque[bytes] = deque()
        # What has come of a message in pieces; joined at once, as each piece may be one byte.
        self._fragments = bytearray()
        # Bytes of a message that is not complete.
        self.held_bytes = 0
        self._reader: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._stopped = False
        self._ping: bytes | None = None

    # What a handler uses.

    async def receive(self) -> bytes:
        """Return the next message, text or binary alike; raises ClosedError at the end."""
        while not self._messages:
            if self._stopped:
                raise ClosedError
            self._reader = self.loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        message = self._messages.popleft()
        if not self._messages:
            self.hold(False)
        return message

    async def send(self, text: bytes) -> None:
        """Send a text message, in UTF-8; waits while the client does not read."""
        await self._writable.wait()
        if not self.write(text_frame(text)):
            raise ClosedError

    async def writable(self) -> None:
        """Wait while the client does not read what was sent."""
        await self._writable.wait()

    def stop_receiving(self) -> None:
        """Drop what was not received yet: :meth:`receive` raises ClosedError from now on."""
        self._stopped = True
        self._messages.clear()
        self._wake()

    async def close(self, code: int, reason: str = "") -> None:
        """Close with a code and a reason, and wait for the client to close, for a limited time."""
        self.begin_close(code, reason)
        await self.wait_closed()

    def give_up(self) -> None:
        """Drop a message that is not complete, and close with 1013."""
        self.fail(1013, "too many bytes of unfinished messages")
        self.hold(True)
        self._fragments.clear()
        self.protocol.reader.discard()
        self._count_held()

    # What the connection calls.

    def step(self) -> None:
        """Count what the connection holds."""
        super().step()
        self._count_held()

    def answer(self, request: Request) -> Response:
        """Let the owner decide."""
        try:
            self.headers = headers_by_name(request.headers.raw_items())
            self.path, _, self.query = request.path.partition("?")
            refusal = self._owner.admit(self)
            response = self.protocol.accept(request)
            if refusal is None and response.status_code != 101:
                refusal = Refusal(response.status_code, "this is not a valid WebSocket handshake")
        except Exception as error:  # noqa: BLE001 - a defect must end one connection, not more
            logger.error("a WebSocket handshake failed: %s: %s", type(error).__name__, error)
            refusal = Refusal(500, "the server failed")
        return response if refusal is None else self._rejection(refusal)

    def opened(self) -> None:
        """Ping the client from now on, and let the owner serve it."""
        self.set_timer("ping", _PING_INTERVAL_S, self._send_ping)
        self._owner.accepted(self)

    def take(self, frame: Frame) -> None:
        """Queue a message once it is whole."""
        if frame.fin and not self._fragments:
            self._queue(bytes(frame.data))
            return
        self._fragments += frame.data
        if frame.fin:
            fragments, self._fragments = self._fragments, bytearray()
            self._queue(bytes(fragments))

    def pong(self, payload: bytes) -> None:
        """Note that the client is there."""
        if self._ping is not None and payload == self._ping:
            self._ping = None
            self.cancel_timer("pong")

    def ending(self) -> None:
        """Receive nothing more."""
        self.cancel_timer("ping")
        self.cancel_timer("pong")
        self.stop_receiving()
        # The client's part of the closing handshake must get through.
        self.hold(False)

    def pause_writing(self) -> None:
        """Limit the time for which a client does not read."""
        super().pause_writing()
        self._writable.clear()
        self.set_timer("stall", self._client_stall, self._stalled)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._writable.set()
        self.cancel_timer("stall")

    def release(self) -> None:
        """Wake the handler."""
        super().release()
        self._fragments.clear()
        held, self.held_bytes = self.held_bytes, 0
        self._owner.holds(self, -held)
        self._writable.set()
        self._owner.lost(self)

    # Inside.

    def _rejection(self, refusal: Refusal) -> Response:
        status = refusal.status
        response = self.protocol.reject(status, "")
        body = problem_body(status, refusal.detail)
        length = str(len(body))
        headers = Headers(
            {"Content-Type": MEDIA_TYPE, "Content-Length": length, "Connection": "close"}
        )
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if status == 503:
            headers["Retry-After"] = "5"
        return Response(response.status_code, response.reason_phrase, headers, body)

    def _queue(self, message: bytes) -> None:
        if self._stopped:
            return
        self._messages.append(message)
        if len(self._messages) >= _MAX_QUEUED_MESSAGES or len(message) >= _LARGE_BYTES:
            self.hold(True)
        self._wake()

    def _count_held(self) -> None:
        held = len(self.protocol.reader.buffer) + len(self._fragments)
        if held != self.held_bytes:
            change, self.held_bytes = held - self.held_bytes, held
            self._owner.holds(self, change)

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _stalled(self) -> None:
        logger.info("closing the WebSocket of %s: the client does not read", self.peer)
        self.transport.abort()

    def _send_ping(self) -> None:
        self._ping = secrets.token_bytes(4)
        self.protocol.send_ping(self._ping)
        self.flush()
        self.set_timer("pong", _PONG_TIMEOUT_S, self._no_pong)
        self.set_timer("ping", _PING_INTERVAL_S + _PONG_TIMEOUT_S, self._send_ping)

    def _no_pong(self) -> None:
        if not self._reading:  # it may have answered
            self.set_timer("pong", _PONG_TIMEOUT_S, self._no_pong)
            return
        self.begin_close(1011, "no answer to a ping")
