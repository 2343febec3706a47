"""WebSockets on the HTTP server's port: the protocol is the websockets library's, without I/O.

Uvicorn hands a connection over with its request. Its own ASGI bridge differs from version to
version and copies each message for each client; here a handler gets the connection itself, and
a frame that goes to many clients is built once.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol, cast

from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from monitor.tokens import ANYONE, Principal
from monitor.web.http.access import Refusal
from monitor.web.http.headers import headers_by_name
from monitor.web.http.problems import MEDIA_TYPE, problem_body

__all__ = ["ClosedError", "WebSocket", "text_frame"]

logger = logging.getLogger("monitor.web")
# The library's own lines, one a connection and more, say nothing that an operator needs.
_protocol_log = logging.getLogger(f"{__name__}.protocol")
_protocol_log.setLevel(logging.WARNING)

_MAX_QUEUED_MESSAGES: Final = 4
_PING_INTERVAL_S: Final = 20.0
_PONG_TIMEOUT_S: Final = 20.0
_CLOSE_TIMEOUT_S: Final = 5.0


class ClosedError(Exception):
    """The connection is closed or closing; never leaves a handler's task."""


class Owner(Protocol):
    """What a connection asks and tells the one that made it."""

    def admit(self, socket: WebSocket, /) -> Refusal | None:
        """Return why the connection is refused, or None."""

    def accepted(self, socket: WebSocket, /) -> None:
        """The handshake is done: serve it."""

    def lost(self, socket: WebSocket, /) -> None:
        """The connection is gone."""


def text_frame(payload: bytes) -> bytes:
    """Return a whole text message as the bytes of a frame, the same for every client."""
    return Frame(Opcode.TEXT, payload).serialize(mask=False)


class WebSocket(asyncio.Protocol):
    """One connection, from its request to its end.

    Reading stops while a few messages wait for :meth:`receive`, and :meth:`send` waits while
    the client takes nothing, so a connection never holds more than a few messages and the
    transport's buffer. ``owner`` decides whether it is accepted and what serves it.
    """

    principal: Principal = ANYONE
    path: str = ""
    headers: dict[str, str]

    def __init__(self, owner: Owner, *, max_message_bytes: int, client_stall: float) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._protocol = ServerProtocol(max_size=max_message_bytes, logger=_protocol_log)
        self._client_stall = client_stall
        self._messages: deque[bytes] = deque()
        # What has come of a message in pieces; joined at once, for pieces may be of a byte each.
        self._fragments = bytearray()
        self._reader: asyncio.Future[None] | None = None
        # Why nothing is read: messages wait for the handler, or answers for the client.
        self._holds: set[str] = set()
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = asyncio.Event()
        self._closing = False
        self._stopped = False
        self._ping: bytes | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self.transport: asyncio.Transport
        self.headers = {}

    @property
    def peer(self) -> str:
        """The client's address, for the log."""
        found = self.transport.get_extra_info("peername")
        return f"{found[0]}:{found[1]}" if isinstance(found, tuple) else "unknown"

    # What a handler uses.

    async def receive(self) -> bytes:
        """Return the next message, text or binary alike; raises ClosedError at the end."""
        while not self._messages:
            if self._closing or self._stopped:
                raise ClosedError
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        message = self._messages.popleft()
        if not self._messages:
            self._release("messages")
        return message

    async def send(self, text: bytes) -> None:
        """Send a text message, in UTF-8; waits while the client takes nothing."""
        await self._writable.wait()
        if not self.write(text_frame(text)):
            raise ClosedError

    def write(self, frames: bytes) -> bool:
        """Send whole frames at once, without waiting; False where the connection is closed."""
        if self._closing or self._protocol.state is not State.OPEN:
            return False
        self.transport.write(frames)
        return True

    async def writable(self) -> None:
        """Wait while the client takes nothing of what waits for it."""
        await self._writable.wait()

    @property
    def is_open(self) -> bool:
        """Whether something can still be sent."""
        return not self._closing

    @property
    def buffered_bytes(self) -> int:
        """Bytes that wait in the transport because the client has not taken them."""
        return 0 if self._closing else self.transport.get_write_buffer_size()

    def stop_receiving(self) -> None:
        """Drop what was not received yet: :meth:`receive` raises ClosedError from now on."""
        self._stopped = True
        self._messages.clear()
        self._wake()

    async def close(self, code: int, reason: str = "") -> None:
        """Close with a code and a reason, and wait, not for ever, until the client has too."""
        self.begin_close(code, reason)
        await self._lost.wait()

    # What asyncio and uvicorn call.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection over."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read what came: the request first, then frames."""
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._handshake(event)
            elif isinstance(event, Frame):
                self._frame(event)
        self._flush()
        if self._protocol.parser_exc is not None or self._protocol.close_rcvd is not None:
            self._end()

    def eof_received(self) -> None:
        """The client sends no more: the transport closes."""
        self._protocol.receive_eof()
        self._end()

    def pause_writing(self) -> None:
        """Give a client that takes nothing a limited time."""
        self._writable.clear()
        # Each ping is answered, also one of a client that takes no answers.
        self._hold("answers")
        self._timer("stall", self._client_stall, self._stalled)

    def resume_writing(self) -> None:
        """The client takes again."""
        self._writable.set()
        self._release("answers")
        self._cancel("stall")

    def connection_lost(self, exc: Exception | None) -> None:
        """Let everything go."""
        del exc
        for name in list(self._timers):
            self._cancel(name)
        self._end()
        self._writable.set()
        self._lost.set()
        self._owner.lost(self)

    # Inside.

    def _handshake(self, request: Request) -> None:
        try:
            self.headers = headers_by_name(request.headers.raw_items())
            self.path = request.path.partition("?")[0]
            refusal = self._owner.admit(self)
            response = self._protocol.accept(request)
            if refusal is None and response.status_code != 101:
                refusal = Refusal(response.status_code, "this is no valid WebSocket handshake")
        except Exception as error:  # noqa: BLE001 - a defect must end one connection, not more
            logger.error("a WebSocket handshake failed: %s: %s", type(error).__name__, error)
            refusal = Refusal(500, "the server failed")
        if refusal is not None:
            self._reject(refusal)
            return
        self._protocol.send_response(response)
        self._flush()
        self._timer("ping", _PING_INTERVAL_S, self._send_ping)
        self._owner.accepted(self)

    def _reject(self, refusal: Refusal) -> None:
        status = refusal.status
        response = self._protocol.reject(status, "")
        body = problem_body(status, refusal.detail)
        headers = Headers()
        for key, value in (
            ("Content-Type", MEDIA_TYPE),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ):
            headers[key] = value
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if status == 503:
            headers["Retry-After"] = "5"
        self._protocol.send_response(
            Response(response.status_code, response.reason_phrase, headers, body)
        )
        self._flush()
        self._end()
        self.transport.close()

    def _frame(self, frame: Frame) -> None:
        match frame.opcode:
            case Opcode.TEXT | Opcode.BINARY | Opcode.CONT:
                if frame.fin and not self._fragments:
                    self._message(bytes(frame.data))
                    return
                self._fragments += frame.data
                if frame.fin:
                    fragments, self._fragments = self._fragments, bytearray()
                    self._message(bytes(fragments))
            case Opcode.PONG if self._ping is not None and bytes(frame.data) == self._ping:
                self._ping = None
                self._cancel("pong")

    def _message(self, message: bytes) -> None:
        if self._closing or self._stopped:
            return
        self._messages.append(message)
        if len(self._messages) >= _MAX_QUEUED_MESSAGES:
            self._hold("messages")
        self._wake()

    def _hold(self, why: str) -> None:
        if not self._holds and not self.transport.is_closing():
            self.transport.pause_reading()
        self._holds.add(why)

    def _release(self, why: str) -> None:
        if why in self._holds:
            self._holds.remove(why)
            if not self._holds and not self.transport.is_closing():
                self.transport.resume_reading()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _flush(self) -> None:
        output = self._protocol.data_to_send()
        if not output or self.transport.is_closing():
            return
        self.transport.write(b"".join(output))
        # An empty piece is how the library says that nothing follows.
        if b"" in output and self.transport.can_write_eof():
            self.transport.write_eof()

    def begin_close(self, code: int, reason: str) -> None:
        """Close with a code and a reason, without waiting."""
        if self._closing:
            return
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason)
            self._flush()
        self._end()

    def _end(self) -> None:
        """Nothing more goes in or out but the closing handshake, for a limited time."""
        if not self._closing:
            self._closing = True
            self._messages.clear()
            self._cancel("ping")
            self._cancel("pong")
            self._wake()
            self._release("messages")  # the client's answer to our close must get through
        if self._lost.is_set() or self.transport.is_closing():
            return
        if self._protocol.close_rcvd is not None and self._protocol.close_sent is not None:
            self.transport.close()
        self._timer("close", _CLOSE_TIMEOUT_S, self.transport.abort)

    def _stalled(self) -> None:
        logger.info("closing the WebSocket of %s, which takes nothing", self.peer)
        self.transport.abort()

    def _send_ping(self) -> None:
        self._ping = secrets.token_bytes(4)
        self._protocol.send_ping(self._ping)
        self._flush()
        self._timer("pong", _PONG_TIMEOUT_S, self._no_pong)
        self._timer("ping", _PING_INTERVAL_S + _PONG_TIMEOUT_S, self._send_ping)

    def _no_pong(self) -> None:
        if self._holds:  # it may have answered: we do not read
            self._timer("pong", _PONG_TIMEOUT_S, self._no_pong)
            return
        self.begin_close(1011, "no answer to a ping")

    def _timer(self, name: str, delay: float, callback: Callable[[], object]) -> None:
        self._cancel(name)
        self._timers[name] = self._loop.call_later(delay, callback)

    def _cancel(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()
