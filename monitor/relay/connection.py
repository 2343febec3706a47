"""One client's connection, and the interfaces on its two sides: its owner and its reader."""

# ruff: noqa: D102 - WebSocketConnection documents the methods

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import struct
import termios
from abc import ABC, abstractmethod
from typing import Protocol

from websockets.frames import Frame
from websockets.http11 import Request, Response

from monitor.relay.codes import NORMAL
from monitor.relay.protocol_v2 import MAX_MESSAGE_BYTES
from monitor.transport.preface import Preface
from monitor.transport.websocket import WebSocketConnection

__all__ = ["ConnectionOwner", "Reader", "SubscriberConnection"]

_WRITE_LIMIT_BYTES = 32768
_HANDSHAKE_S = 10.0
# s that a client has to read the answer to a request that is not for a WebSocket.
_LINGER_S = 2.0


class ConnectionOwner(Protocol):
    """The server side that a connection reports to."""

    def connected(self, connection: SubscriberConnection, /) -> None:
        """A client connected; its handshake follows."""

    def is_from_proxy(self, connection: SubscriberConnection, /) -> bool:
        """Return whether a trusted proxy speaks, as far as is known."""

    def answer_plainly(self, connection: SubscriberConnection, method: str, /) -> bytes:
        """Return the answer to a request that is not for a WebSocket; then the connection ends."""

    def refuse_preface(self, connection: SubscriberConnection, problem: str, /) -> None:
        """Log what is wrong with the bytes before the handshake."""

    def answer(self, connection: SubscriberConnection, request: Request, /) -> Response:
        """Return the answer to the handshake, and set the reader of an accepted connection."""

    def paused(self, connection: SubscriberConnection, /) -> None:
        """The client does not read as fast as the relay writes."""

    def resumed(self, connection: SubscriberConnection, /) -> None:
        """The client has read what was written."""

    def flooded(self, connection: SubscriberConnection, /) -> None:
        """The client takes too much of the loop's time; the connection ends."""

    def lost(self, connection: SubscriberConnection, /) -> None:
        """The connection is lost."""


class Reader(ABC):
    """What reads channels for a client: one of the two protocols."""

    __slots__ = ("held_bytes",)

    # How much memory its subscriptions take, and the channels that may be there only for them.
    held_bytes: int

    @abstractmethod
    def opened(self) -> None:
        """Begin: the handshake is done."""

    @abstractmethod
    def take(self, frame: Frame) -> None:
        """Take a frame of data that the client sent."""

    @abstractmethod
    def advance_all(self) -> None:
        """Write what the client has not got yet, as far as it reads."""

    @abstractmethod
    def tell_feed(self, frame: bytes, change: int) -> None:
        """Tell the client of a change of the feed, by its frame in the recovering protocol."""

    @property
    @abstractmethod
    def is_behind(self) -> bool:
        """Whether messages that are kept were not written yet."""

    @abstractmethod
    def close(self) -> list[bytes]:
        """Leave all channels; return their names."""


class SubscriberConnection(WebSocketConnection):
    """A client's connection."""

    close_timeout_s = 10.0

    # Speaks the client's protocol; there is one from the beginning to the end.
    reader: Reader

    def __init__(self, owner: ConnectionOwner) -> None:
        super().__init__(max_message_bytes=MAX_MESSAGE_BYTES)
        # Whether the handshake was refused, and whether the client sent anything at all.
        self.refused = False
        self.heard = False
        self._owner = owner
        self._preface: Preface | None = None
        # Of a client that has to read the rest before the close: how long (s) it may read
        # nothing, and what was unread at the last look.
        self._client_stall = 0.0
        self._unread_bytes = 0

    @property
    def is_writable(self) -> bool:
        """Whether messages may be written now."""
        return self.is_open and not self.paused

    # What the handshake and frames mean.

    def answer(self, request: Request) -> Response:
        return self._owner.answer(self, request)

    def opened(self) -> None:
        self.cancel_timer("handshake")
        self.reader.opened()

    def take(self, frame: Frame) -> None:
        if self.is_open:
            self.reader.take(frame)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection in, and limit the time for its handshake."""
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(_WRITE_LIMIT_BYTES)
        self.set_timer("handshake", _HANDSHAKE_S, self.transport.abort)
        self._preface = Preface(from_proxy=self._owner.is_from_proxy(self))
        self._owner.connected(self)

    def feed(self, data: bytes) -> None:
        """Note that the client sent something: a port scan is not a fault."""
        preface = self._preface
        if preface is not None:
            try:
                rest = preface.take(data)
                self.heard = preface.heard
            except ValueError as problem:
                self.refused = True
                self._owner.refuse_preface(self, str(problem))
                self.transport.abort()
                return
            if preface.client is not None and self.client is None:
                self.client = preface.client
                self.belongs_to(preface.client[0])
            if rest is None:
                return
            self._preface = None
            if preface.plain_method:
                self.refused = True
                self._answer_plainly(preface.plain_method)
                return
            data = rest
        super().feed(data)

    def _answer_plainly(self, method: str) -> None:
        """Answer a request that is not for a WebSocket, and close."""
        self.transport.write(self._owner.answer_plainly(self, method))
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.discard()
            self.set_timer("handshake", _LINGER_S, self.transport.abort)
        else:  # TLS
            self.transport.close()

    def over_budget(self) -> None:
        self._owner.flooded(self)
        super().over_budget()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._owner.paused(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._owner.resumed(self)

    def release(self) -> None:
        super().release()
        self._owner.lost(self)
        # The reader refers to its connection, too.
        del self.reader

    # The end.

    def finish(self, client_stall: float) -> None:
        """Close with 1000, after all that was written.

        The client has time to read it, as long as it never reads nothing for ``client_stall`` s.
        """
        if self.is_open:
            self._client_stall = client_stall
            self._unread_bytes = self.unread_bytes()
            self.begin_close(NORMAL)
            if self.transport.get_write_buffer_size():
                self.set_timer("close", self._client_stall, self.close_timed_out)

    def close_timed_out(self) -> None:
        """Give up, unless the client is still reading what was written before the close."""
        before, self._unread_bytes = self._unread_bytes, self.unread_bytes()
        if self._unread_bytes >= before:
            self.transport.abort()
            return
        drained = not self.transport.get_write_buffer_size()
        self.set_timer(
            "close",
            self.close_timeout_s if drained else self._client_stall,
            self.close_timed_out,
        )

    def unread_bytes(self) -> int:
        """How much waits for the client, in our buffer and in the kernel's."""
        waiting = self.transport.get_write_buffer_size()
        with contextlib.suppress(OSError, ValueError, AttributeError):
            descriptor = self.transport.get_extra_info("socket").fileno()
            # SIOCOUTQ, tcp(7): bytes not yet acknowledged by the peer.
            waiting += struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0" * 4))[0]
        return waiting

    def violation(self) -> str:
        """Return what was wrong with what a lost connection sent; empty if nothing was."""
        if not self.heard or self.refused:
            return ""
        error: BaseException | None = self.protocol.handshake_exc
        if error is None:
            error = getattr(self.protocol, "parser_exc", None)
            if error is None or isinstance(error, EOFError):
                return ""
        reasons = [str(error)]
        if error.__cause__ is not None:
            reasons.append(str(error.__cause__))
        return ": ".join(reasons)[:200]
