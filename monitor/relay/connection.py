"""One client's WebSocket connection, and what it may take."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import struct
import termios
from typing import TYPE_CHECKING, Any

from websockets.asyncio.server import ServerConnection
from websockets.frames import DATA_OPCODES, Frame, Opcode
from websockets.protocol import State

from monitor.relay.channel import Subscriber
from monitor.relay.codes import UNSUPPORTED
from monitor.settings import address_text

if TYPE_CHECKING:
    from monitor.relay.server import Server
    from monitor.relay.session import Session

__all__ = ["Connection"]

# Requests that may come with the handshake, before it is answered.
_EARLY_MESSAGES = 64


class Connection(ServerConnection, Subscriber):
    """A client's connection; with the old protocol also its position in its one channel."""

    def __init__(self, *args: Any, relay: Server, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.relay = relay
        self.channel = None
        self.position = 0
        # Whether the client speaks the recovering protocol; then it has a session once it is in.
        self.recovering = False
        self.session: Session | None = None
        # Whether it was told that it may not connect, and whether it said anything at all.
        self.refused = False
        self.heard = False
        # Set once the client sent a whole message; what follows means nothing.
        self.named = False
        self._early: list[bytes] = []
        self._fragments = b""
        # Code and reason to close with, or None where the connection is gone.
        self.end: asyncio.Future[tuple[int, str] | None] = self.loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection."""
        super().connection_made(transport)
        self.relay.connected(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake the handler and leave the channel."""
        super().connection_lost(exc)
        self.finish(None)
        self.relay.lost(self)
        self._unravel()

    def _unravel(self) -> None:
        """Undo what refers to itself, so that all of a lost connection is freed at once.

        Where thousands come and go, the garbage collector would find it late, or stop the loop
        often to find it. The library's parser is a generator of an object that holds it, and an
        error that ended it holds the frames of both.
        """
        self.session = None
        if isinstance(self.logger, logging.LoggerAdapter):
            # It knows the connection, too, up to websockets 15.
            self.logger = self.protocol.logger = self.logger.logger
        parser = getattr(self.protocol, "parser", None)
        if parser is not None:
            parser.close()
        error = getattr(self.protocol, "parser_exc", None)
        if error is not None:
            error.__traceback__ = None

    def data_received(self, data: bytes) -> None:
        """Note that the peer said something: who only knocks is no fault."""
        self.heard = True
        super().data_received(data)

    def rubbish(self) -> str:
        """Return what was wrong with what a lost connection sent; empty where nothing was."""
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

    def process_event(self, event: Any) -> None:
        """Let the first message through, and no other; a session takes all of its own."""
        if isinstance(event, Frame) and event.opcode in DATA_OPCODES:
            if self.recovering:
                self._take(event)
                return
            if self.named:
                return
            self.named = event.fin
        super().process_event(event)

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.BINARY:
            self.finish((UNSUPPORTED, "a request is text"))
            return
        # The library bounds a message, however many frames it comes in.
        self._fragments += bytes(frame.data)
        if frame.fin:
            data, self._fragments = self._fragments, b""
            if self.session is not None:
                self.session.take(data)
            elif len(self._early) < _EARLY_MESSAGES:
                self._early.append(data)
            else:
                self.transport.abort()

    def open_session(self, session: Session) -> None:
        """Give a session what its client says, also what it said already."""
        self.session = session
        for data in self._early:
            session.take(data)
        self._early.clear()

    def pause_writing(self) -> None:
        """The transport is full: nothing is written, and no request read."""
        super().pause_writing()
        if self.session is not None:
            self.transport.pause_reading()
        self.relay.delivery.paused(self)

    def resume_writing(self) -> None:
        """The transport takes more."""
        super().resume_writing()
        if self.session is not None:
            self.transport.resume_reading()
        self.relay.delivery.resumed(self)

    def finish(self, how: tuple[int, str] | None) -> None:
        """Let the handler close the connection, unless it is ending already."""
        if not self.end.done():
            self.end.set_result(how)

    @property
    def open(self) -> bool:
        """Whether anything may be written: neither side began to close."""
        return not self.end.done() and self.protocol.state is State.OPEN

    @property
    def writable(self) -> bool:
        """Whether messages may be written now."""
        return not self.paused and self.open

    def untaken_bytes(self) -> int:
        """What waits for this client in our buffer and in the kernel's."""
        waiting = self.transport.get_write_buffer_size()
        with contextlib.suppress(OSError, ValueError, AttributeError):
            descriptor = self.transport.get_extra_info("socket").fileno()
            # SIOCOUTQ, tcp(7): bytes not yet acknowledged by the peer.
            waiting += struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0" * 4))[0]
        return waiting

    def __str__(self) -> str:
        """Write the client's address: what a line of the log shows, if there is one."""
        return self.peer()

    def peer(self) -> str:
        """The client's address, for the log."""
        address = self.remote_address
        return address_text(address[:2]) if address else "a client that is gone"
