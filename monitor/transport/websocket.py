"""The server side of a WebSocket connection, from its handshake to its end.

The protocol is the websockets library's, without I/O; this class connects it to an asyncio
transport. The library's own asyncio layer gives each connection a task, a queue and a copy of
each message; here a frame that goes to many clients is built once and written as it is.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from http import HTTPStatus

from websockets.frames import DATA_OPCODES, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State

from monitor.settings import Address, address_text
from monitor.transport.fair import FairReading
from monitor.transport.handshake import HandshakeProtocol

__all__ = ["WebSocketConnection"]

# The library logs several lines per connection, of which an operator needs only the errors.
_library_log = logging.getLogger(f"{__name__}.library")
_library_log.setLevel(logging.WARNING)

# Bytes of the handshake's request.
_MAX_HANDSHAKE_BYTES = 16 * 1024
_HANDSHAKE_END = b"\r\n\r\n"
_OVER_BUDGET = 1008


class WebSocketConnection(FairReading):
    """One connection. It belongs to the loop's thread.

    A subclass answers the handshake and takes the frames. Nothing is read while the client does
    not read: every request and every ping has an answer, and answers must not pile up.
    """

    # s that the client has to complete the closing handshake
    close_timeout_s = 5.0

    def __init__(self, *, max_message_bytes: int) -> None:
        super().__init__()
        self.protocol = HandshakeProtocol(max_size=max_message_bytes, logger=_library_log)
        # Whether frames may be written: the handshake is done, and neither side began to close.
        self.is_open = False
        # Whether the transport's buffer is full.
        self.paused = False
        self._lost: asyncio.Future[None] = self.loop.create_future()
        self._ending = False
        # Whether the answer to the handshake waits for what is written with it.
        self._opening = False
        # Frames that are parsed and not taken yet.
        self._events: deque[object] = deque()
        self._handshake_bytes = 0
        # The last bytes of the request that may begin its end.
        self._handshake_end = b""
        self._timers: dict[str, asyncio.TimerHandle] = {}
        # The client that a trusted proxy named.
        self.client: Address | None = None

    # What a subclass defines.

    @abstractmethod
    def answer(self, request: Request) -> Response:
        """Return the response to the handshake; any status but 101 ends the connection."""

    @abstractmethod
    def opened(self) -> None:
        """Begin: the handshake is done, and frames may be written."""

    @abstractmethod
    def take(self, frame: Frame) -> None:
        """Take a frame of data, which is a message or a part of one."""

    def pong(self, payload: bytes) -> None:
        """Take a pong."""

    def ending(self) -> None:
        """Stop: from now on there is only the closing handshake."""

    # What a subclass and its owner use.

    @property
    def host(self) -> str:
        """The client's IP address; empty if it has none."""
        return self.peername[0] if self.peername else ""

    @property
    def peer(self) -> str:
        """The client's address, for the log."""
        found = self.client or self.peername
        return address_text(found) if found else "unknown"

    @property
    def buffered_bytes(self) -> int:
        """How many bytes wait in the transport because the client has not read them."""
        return self.transport.get_write_buffer_size() if self.is_open else 0

    def write(self, frames: bytes) -> bool:
        """Write whole frames without waiting; return False if the connection is closed."""
        if not self.is_open:
            return False
        if self._opening:
            self.protocol.writes.append(frames)
        else:
            self.transport.write(frames)
        return True

    def begin_close(self, code: int, reason: str = "") -> None:
        """Close with a code and a reason, without waiting for the client."""
        if self._ending:
            return
        if self.protocol.state is State.OPEN:
            self.protocol.send_close(code, reason)
            self.flush()
        self._end()

    def fail(self, code: int, reason: str) -> None:
        """Close because of what the client sent; nothing more is read (RFC 6455, section 7.1.7)."""
        if self.is_open:
            self.protocol.fail(code, reason)
            self.flush()
            self._end()

    async def wait_closed(self, limit_s: float | None = None) -> None:
        """Wait until the connection is lost, for ``limit_s`` at most."""
        # It leaves the future alone when the waiting task is cancelled.
        await asyncio.wait([self._lost], timeout=limit_s)

    def set_timer(self, name: str, delay_s: float, callback: Callable[[], object]) -> None:
        """Call ``callback`` after ``delay_s`` unless the connection is lost before."""
        self.cancel_timer(name)
        self._timers[name] = self.loop.call_later(delay_s, callback)

    def cancel_timer(self, name: str) -> None:
        """Cancel a timer, if there is one of that name."""
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    @property
    def has_work(self) -> bool:
        """Whether frames, or bytes, are still to be taken."""
        return bool(self._events) or self._at < len(self._input)

    @property
    def is_blocked(self) -> bool:
        """Whether nothing may be taken now: the client does not read, or a subclass is busy."""
        return self._held or self.paused

    def drop_input(self) -> None:
        """Forget what was read and not taken."""
        super().drop_input()
        self._events.clear()

    def over_budget(self) -> None:
        """Close with 1008, and read nothing more; without an answer if there is no WebSocket."""
        if self.is_open:
            self.fail(_OVER_BUDGET, "too many small frames or requests")
            self.hold(True)
        else:
            self.transport.abort()

    def flush(self) -> None:
        """Write what the protocol has to send."""
        output = self.protocol.data_to_send()
        if not output or self.transport.is_closing():
            return
        data = b"".join(output)
        if data:
            self.transport.write(data)
        # An empty piece is the library's sign for the end of the stream.
        if b"" in output:
            if self.transport.can_write_eof():
                self.transport.write_eof()
            else:  # TLS
                self.transport.close()

    # What asyncio calls.

    def data_received(self, data: bytes) -> None:
        """Take what an HTTP server has read before it handed the connection over."""
        self.feed(data)

    def step(self) -> None:
        """Take one frame; or read a slice of the handshake's request, or of frames."""
        protocol, events = self.protocol, self._events
        if events:
            self._take(events.popleft())
        else:
            data = self.next_slice()
            taken = False
            # What follows a request that was refused means nothing.
            if protocol.state is State.CONNECTING and not self._ending:
                if self._handshake_bytes >= _MAX_HANDSHAKE_BYTES:
                    self._refuse_handshake()
                    return
                first = not self._handshake_bytes
                self._handshake_bytes += len(data)
                data = self._request_in(data)
                taken = first and protocol.take_request(data)
            if not taken:
                protocol.receive_data(data)
            events.extend(protocol.events_received())
            if protocol.state is not State.CONNECTING:
                self.flush()
            if protocol.state is not State.OPEN:
                self.is_open = False
            if len(events) == 1:
                self._take(events.popleft())
        if not events:
            self.flush()
            if protocol.close_expected():
                self._end()

    def eof_received(self) -> bool:
        """The client sends no more, and the transport closes."""
        return not self.turns.end(self._close_at_eof)

    def pause_writing(self) -> None:
        """Read nothing while the client does not."""
        self.paused = True
        self._settle()

    def resume_writing(self) -> None:
        """The client reads again."""
        self.paused = False
        self._settle()

    def connection_lost(self, exc: Exception | None) -> None:
        """Write no more, and release what the connection has."""
        del exc
        self.is_open = False
        self.turns.end(self.release)

    def release(self) -> None:
        """Release what the lost connection has; in a later turn if very many were lost at once."""
        # From here on the protocol's state is CLOSED.
        self.protocol.receive_eof()
        self._end()
        for name in list(self._timers):
            self.cancel_timer(name)
        self.drop_input()
        self._lost.set_result(None)
        self._break_cycles()

    # Inside.

    def _close_at_eof(self) -> None:
        self.protocol.receive_eof()
        self._end()
        self.transport.close()

    def _request_in(self, data: bytes) -> bytes:
        """Return what is of the handshake's request; what follows it waits for the answer.

        The library would answer frames, such as a ping, before the request.
        """
        before = self._handshake_end
        end = (before + data).find(_HANDSHAKE_END)
        if end < 0:
            self._handshake_end = (before + data)[1 - len(_HANDSHAKE_END) :]
            return data
        size = end + len(_HANDSHAKE_END) - len(before)
        self.put_back(data[size:])
        return data[:size]

    def _shake_hands(self, request: Request) -> None:
        response = self.answer(request)
        self.protocol.send_response(response)
        if self.protocol.state is State.OPEN:
            self.is_open = self._opening = True
            try:
                self.opened()
            finally:
                self._opening = False
        self.flush()
        if self.protocol.state is not State.OPEN:
            self._end()

    def _take(self, event: object) -> None:
        if isinstance(event, Request):
            self._shake_hands(event)
        elif isinstance(event, Frame):
            if event.opcode in DATA_OPCODES:
                self.take(event)
            elif event.opcode is Opcode.PONG:
                self.pong(bytes(event.data))

    def _refuse_handshake(self) -> None:
        text = f"The handshake has more than {_MAX_HANDSHAKE_BYTES // 1024} KiB.\n"
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        self.protocol.send_response(self.protocol.reject(status, text))
        self.flush()
        self._end()

    def _end(self) -> None:
        """Allow nothing but the closing handshake, for a limited time."""
        if not self._ending:
            self._ending = True
            self.is_open = False
            self.ending()
            if not self._lost.done():
                self.set_timer("close", self.close_timeout_s, self.close_timed_out)
        if self._lost.done() or self.transport.is_closing():
            return
        if self.protocol.close_rcvd is not None and self.protocol.close_sent is not None:
            self.transport.close()

    def close_timed_out(self) -> None:
        """Give up waiting for the client's part of the closing handshake."""
        self.transport.abort()

    def _break_cycles(self) -> None:
        """Undo what refers to itself, so that a lost connection is freed at once.

        Where thousands of clients come and go, the garbage collector would find them late, or
        stop the loop often to find them. The library's parser is a generator of an object that
        holds it, and an error that ended it holds the frames of both.
        """
        parser = getattr(self.protocol, "parser", None)
        if parser is not None:
            parser.close()
        for name in ("parser_exc", "handshake_exc"):
            error = getattr(self.protocol, name, None)
            while error is not None:
                error.__traceback__ = None
                error = error.__cause__ or error.__context__
