"""One ZeroMQ peer without security: handshake, messages, and its limits."""

from __future__ import annotations

import asyncio
import math
import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

from monitor.transport.fair import FairReading
from monitor.transport.zmtp import Zmtp, ZmtpError, message

__all__ = ["ConnectionOwner", "ZmtpConnection"]

_HANDSHAKE_S: Final = 10.0
# A peer that reads nothing may have this many bytes waiting, and one message more.
_MAX_UNSENT_BYTES: Final = 1024 * 1024
_STALL_S: Final = 60.0
# When it is read for the last time: bytes of a read, and how many reads.
_LAST_READ_BYTES: Final = 65536
_LAST_READS: Final = 64
_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
)
# Of a peer that may be gone.
_DOUBTED: Final = (
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 3000),
)


class ConnectionOwner(Protocol):
    """What owns a connection: it counts connections, and takes what they read."""

    reading: bool
    """Whether peers may connect and are read."""

    def zmtp(self) -> Zmtp:
        """Return a parser."""

    def admit(self, connection: ZmtpConnection, /) -> bool:
        """Return whether there is room for a new connection."""

    def connected(self, connection: ZmtpConnection, /) -> bytes:
        """Count a connection, and return its number."""

    def ready(self, connection: ZmtpConnection, /) -> None:
        """Note that the handshake of a connection is complete."""

    def received(self, connection: ZmtpConnection, messages: deque[list[bytes]], /) -> bool:
        """Take messages; return whether the connection may be read on."""

    def served(self) -> None:
        """Note that some messages were taken."""

    def hold(self, change: int, /) -> None:
        """Count bytes of unfinished messages."""

    def fault(self, connection: ZmtpConnection, problem: str, /) -> None:
        """Note why a connection is closed."""

    def disconnected(self, connection: ZmtpConnection, /) -> None:
        """Count a connection out."""


class ZmtpConnection(FairReading):
    """One peer."""

    # A peer that sends much waits, and is not closed: what it sent would be lost.
    burst_s = math.inf

    def __init__(self, server: ConnectionOwner) -> None:
        super().__init__()
        self._server = server
        self._zmtp = server.zmtp()
        self.number = b""
        self.address = "unknown"
        self.identity = b""
        """The name that the peer set for itself, which others may have, too."""
        self.is_ready = False
        """Whether the handshake is complete."""
        self.is_known = False
        """Whether the server's owner knows who it is."""
        self.held_bytes = 0
        # What is wrong with what it sent after the messages that are complete.
        self._problem = ""
        self.fault = ""
        """Why it is closed."""
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self.closed = asyncio.Event()

    @property
    def peer(self) -> str:
        """The peer, for the log."""
        return f"the ZeroMQ peer {self.address}"

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake, or refuse."""
        super().connection_made(transport)
        found = transport.get_extra_info("peername")
        self.address = str(found[0]) if isinstance(found, tuple) else "unknown"
        if not (self._server.reading and self._server.admit(self)):
            self.transport.abort()
            return
        self._set_options(_KEEPALIVE)
        self.number = self._server.connected(self)
        if not self._held:
            self._expect_handshake()
        self._answer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take what was read, and forget the connection; in later turns if that takes long."""
        del exc
        self.turns.end(self._end)

    def _end(self) -> bool:
        """Take a slice of what was read, or forget the connection; return whether there is more."""
        try:
            if self.number and self.has_work and not self._held and not self.fault:
                self.step()
                return True
        except BaseException:
            self.drop_input()
            self._forget()
            raise
        self._forget()
        return False

    def _forget(self) -> None:
        self._hold(0)
        for handle in (self._deadline, self._stall):
            if handle is not None:
                handle.cancel()
        self.closed.set()
        self._server.disconnected(self)

    def pause_writing(self) -> None:
        """Limit the time for which a peer reads nothing."""
        if self._stall is None:
            self._stall = self.loop.call_later(_STALL_S, self.drop, "it reads nothing")

    def resume_writing(self) -> None:
        """The peer reads again."""
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    # What the server's owner calls.

    def send(self, frames: Sequence[bytes]) -> bool:
        """Send a message at once; False if the peer reads too little or is gone."""
        transport = self.transport
        if transport.is_closing() or transport.get_write_buffer_size() > _MAX_UNSENT_BYTES:
            return False
        transport.write(message(frames))
        return True

    def pause(self) -> None:
        """Read nothing more until :meth:`resume`."""
        if not self._held:
            self.hold(True)

    def resume(self) -> None:
        """Read on, from the next turn of the loop."""
        if self._held and self._server.reading and not self.transport.is_closing():
            if not self.is_ready:
                self._expect_handshake()
            self.hold(False)

    def read_rest(self) -> None:
        """Take what the peer has sent up to now, without waiting for turns."""
        descriptor = self.transport.get_extra_info("socket").fileno()
        for _ in range(_LAST_READS):
            self._finish_input()
            if self.is_blocked:
                return
            try:
                data = os.read(descriptor, _LAST_READ_BYTES)
            except OSError:
                return
            if not data:
                return
            self._input = data

    def drop(self, problem: str) -> None:
        """Close the connection because of a fault."""
        if not self.fault:
            self.fault = problem
            self._server.fault(self, problem)
            self.transport.abort()
            # Its memory is free now, not when the loop closes the socket.
            self.drop_input()
            self._zmtp = self._server.zmtp()
            self._hold(0)

    def ask_kernel(self) -> None:
        """Find out in 3 s whether the peer is still there; if it is, nothing is lost."""
        if not self.transport.is_closing():
            self._set_options(_DOUBTED)

    def _set_options(self, options: Sequence[tuple[int, int, int]]) -> None:
        raw = self.transport.get_extra_info("socket")
        for level, option, value in options:
            raw.setsockopt(level, option, value)

    # What the turns call.

    @property
    def has_work(self) -> bool:
        """Whether something that was read is still to be parsed, or passed on."""
        return bool(self._zmtp.messages) or self._at < len(self._input)

    @property
    def is_blocked(self) -> bool:
        """Whether nothing may be parsed now."""
        return self._held or self.transport.is_closing()

    def step(self) -> None:
        """Parse a slice, and pass its messages on."""
        zmtp = self._zmtp
        if not zmtp.messages:
            try:
                zmtp.receive(self.next_slice())
            except ZmtpError as error:
                self._problem = str(error)
            if zmtp.ready and not self.is_ready:
                self._be_ready()
        messages = zmtp.messages
        if messages and not self._server.received(self, messages):
            self.pause()
        if zmtp.outgoing:
            self._answer()
        if self._problem and not messages:
            self.drop(self._problem)

    def served(self) -> None:
        """Count what is held, and tell that some messages came."""
        self._hold(self._zmtp.held_bytes)
        self._server.served()

    def over_budget(self) -> None:
        """Nothing: it only waits for its turns."""

    def _finish_input(self) -> None:
        while self.has_work and not self._held and not self.fault:
            self.step()

    def _expect_handshake(self) -> None:
        if self._deadline is None:
            problem = "no handshake in time"
            self._deadline = self.loop.call_later(_HANDSHAKE_S, self.drop, problem)

    def _be_ready(self) -> None:
        self.is_ready = True
        self.identity = self._zmtp.identity
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._server.ready(self)

    def _answer(self) -> None:
        outgoing = self._zmtp.outgoing
        if self.transport.is_closing():
            return
        if self.transport.get_write_buffer_size() > _MAX_UNSENT_BYTES:
            self.drop("it reads nothing")
            return
        self.transport.write(bytes(outgoing))
        outgoing.clear()

    def _hold(self, size: int) -> None:
        change, self.held_bytes = size - self.held_bytes, size
        if change:
            self._server.hold(change)
