"""A TLS server's listener: handshakes have limits, and those that fail are reported.

asyncio's own server begins a handshake with everyone who connects, however many there are, and does
not tell when one fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from monitor.settings import Address
from monitor.transport.fair import Turns

__all__ = ["MOST_HANDSHAKES", "TLSServer"]

MOST_HANDSHAKES = 1024
"""Connections of a listener at once that have not finished their handshake."""

# With so many, one that we have waited for so long (s) makes room for the next. Until then the next
# waits in the kernel's queue, as most do where thousands of clients come back at once.
_LEAST_S = 3.0
_ACCEPTED_PER_TURN = 64
# s until the next look where the process lacks descriptors or memory.
_PAUSE_S = 1.0
_LACKING = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_PLAIN = frozenset(("HTTP_REQUEST", "HTTPS_PROXY_REQUEST"))


class Refused(Protocol):
    """What is called for a handshake that failed."""

    def __call__(self, kind: str, text: str, peer: Address, /) -> object:
        """Take what failed: ``tls``, ``tls-plain`` (HTTP) or ``tls-silent``, and why.

        The text is empty for a client that left before it said anything, such as a load balancer
        that only looks whether the port is open.
        """


@dataclass(slots=True, eq=False)
class _Handshake:
    connection: socket.socket
    peer: Address
    # When (s) we began to wait for the client; None while it waits for us.
    since: float | None
    # Whether the client said anything, and whether it took too long.
    heard: bool = False
    late: bool = False
    # Whether the connection belongs to a transport.
    handed_over: bool = False
    task: asyncio.Task[None] | None = None

    def give_up(self) -> None:
        """End it, because it took too long."""
        self.late = True
        self.cancel()

    def cancel(self) -> None:
        """End it."""
        assert self.task is not None
        self.task.cancel()


class TLSServer:
    """Accepts the connections of a socket that listens; owns them until they are encrypted.

    ``factory`` makes the protocol of a connection, which may take ``limit_s`` for its handshake.
    While ``full`` says so, connections are closed at once.
    """

    def __init__(
        self,
        listener: socket.socket,
        factory: Callable[[], asyncio.BaseProtocol],
        context: ssl.SSLContext,
        *,
        limit_s: float,
        refused: Refused,
        full: Callable[[], bool] = lambda: False,
    ) -> None:
        self._listener = listener
        self._factory = factory
        self._context = context
        self._limit_s = limit_s
        self._refused = refused
        self._full = full
        self._loop = asyncio.get_running_loop()
        self._turns = Turns.of(self._loop)
        # The oldest first.
        self._handshakes: dict[_Handshake, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        # Whether the pause is for handshakes to end.
        self._lacks_room = False
        self._closed = False

    def start(self, backlog: int) -> None:
        """Accept connections; ``backlog`` wait in the kernel's queue."""
        self._listener.setblocking(False)
        self._listener.listen(backlog)
        self._resume()

    def close(self) -> None:
        """Accept no more, and end the handshakes."""
        if self._closed:
            return
        self._closed = True
        self._lacks_room = False
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for handshake in self._handshakes:
            handshake.cancel()

    async def wait_closed(self) -> None:
        """Wait until no handshake is left."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _resume(self) -> None:
        self._pause = None
        self._lacks_room = False
        self._loop.add_reader(self._listener, self._accept)

    def _pause_for(self, delay_s: float) -> None:
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(delay_s, self._resume)

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_PER_TURN):
            late = None
            if len(self._handshakes) >= MOST_HANDSHAKES:
                late = self._longest_late()
                if late is None:
                    self._pause_for(_PAUSE_S)
                    self._lacks_room = True
                    return
            try:
                connection, peer = self._listener.accept()
            except OSError as error:
                if error.errno in _LACKING:
                    self._pause_for(_PAUSE_S)
                return
            if self._full():
                connection.close()
                self._refused("max-clients", "too many clients", peer[:2])
                continue
            if late is not None:
                del self._handshakes[late]
                late.give_up()
            connection.setblocking(False)
            self._begin(_Handshake(connection, peer[:2], self._loop.time()))

    def _longest_late(self) -> _Handshake | None:
        """Return who makes room: of the host with the most, who said nothing for the longest."""
        before = self._loop.time() - _LEAST_S
        late = [
            each for each in self._handshakes if each.since is not None and each.since <= before
        ]
        late = [each for each in late if not each.heard] or late
        if not late:
            return None
        ((host, _),) = Counter(each.peer[0] for each in late).most_common(1)
        return next(each for each in late if each.peer[0] == host)

    def _begin(self, handshake: _Handshake) -> None:
        self._handshakes[handshake] = None
        task = handshake.task = self._loop.create_task(self._serve(handshake), name="tls")
        self._tasks.add(task)
        task.add_done_callback(functools.partial(self._over, handshake))

    def _over(self, handshake: _Handshake, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._handshakes.pop(handshake, None)
        if not handshake.handed_over:
            handshake.connection.close()
        if self._lacks_room and self._pause is not None:
            self._pause.cancel()
            self._resume()

    async def _serve(self, handshake: _Handshake) -> None:
        peer = handshake.peer
        try:
            await self._shake(handshake)
        except asyncio.CancelledError:
            if not handshake.late:
                raise
            took_s = self._loop.time() - (handshake.since or 0.0)
            if handshake.heard:
                self._refused("tls", f"no TLS handshake in {took_s:.0f} s", peer)
            else:
                self._refused("tls-silent", f"nothing in {took_s:.0f} s", peer)
        except ssl.SSLError as error:
            if error.reason in _PLAIN:
                self._refused("tls-plain", "plain HTTP where TLS is spoken", peer)
            else:
                reason = (error.reason or "unknown reason").replace("_", " ").lower()
                self._refused("tls", f"the TLS handshake failed: {reason}", peer)
        except OSError:
            self._refused("tls", "the client left during the TLS handshake", peer)

    async def _shake(self, handshake: _Handshake) -> None:
        # Until a client says something, it costs a descriptor, and no memory for TLS.
        with self._limited(handshake):
            handshake.heard = await self._heard(handshake.connection)
        if not handshake.heard:
            self._refused("tls-silent", "", handshake.peer)
            return
        handshake.since = None
        await self._turns.begin_request()
        handshake.since = self._loop.time()
        with self._limited(handshake):
            handshake.handed_over = True
            await self._loop.connect_accepted_socket(
                self._factory,
                handshake.connection,
                ssl=self._context,
                ssl_handshake_timeout=self._limit_s + 1,
            )

    @contextlib.contextmanager
    def _limited(self, handshake: _Handshake) -> Iterator[None]:
        timer = self._loop.call_later(self._limit_s, handshake.give_up)
        try:
            yield
        finally:
            timer.cancel()

    async def _heard(self, connection: socket.socket) -> bool:
        """Wait until the client says something; return False if it leaves before."""
        while True:
            readable = self._loop.create_future()
            self._loop.add_reader(connection, _set, readable)
            try:
                await readable
            finally:
                self._loop.remove_reader(connection)
            try:
                return bool(connection.recv(1, socket.MSG_PEEK))
            except (BlockingIOError, InterruptedError):
                continue
            except OSError:
                return False


def _set(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)
