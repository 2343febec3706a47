"""A TLS server's listener: handshakes have limits, and those that fail are reported.

asyncio's own server begins a handshake with everyone who connects, however many there are, does not
tell when one fails, and takes a PROXY header for a part of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import socket
import ssl
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from monitor.settings import Address
from monitor.transport.crowds import Crowds
from monitor.transport.fair import Turns
from monitor.transport.proxies import MAX_HEADER_BYTES, read_proxy_header

__all__ = ["MOST_HANDSHAKES", "MOST_WAITING", "TLSServer"]

MOST_HANDSHAKES = 1024
"""Connections of a listener at once that are in their handshake."""

MOST_WAITING = 4096
"""Connections of a listener at once that wait for that, as where thousands come back at once."""

# If there are too many handshakes, one that we have waited for this long (s) makes room.
_LEAST_S = 3.0
_ACCEPTED_PER_TURN = 32
# s until the next look where the process lacks descriptors or memory.
_PAUSE_S = 1.0
_LACKING = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_PLAIN = frozenset(("HTTP_REQUEST", "HTTPS_PROXY_REQUEST"))


class Refused(Protocol):
    """What is called for a handshake that failed."""

    def __call__(self, kind: str, text: str, peer: Address, /) -> object:
        """Take what failed, and why.

        Kinds are ``tls``, ``tls-plain`` (HTTP), ``tls-silent``, ``tls-many``, ``proxy`` and
        ``max-clients``.

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
    # The client that a trusted proxy named.
    client: Address | None = None
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

    ``factory`` makes the protocol of a connection, which may take ``limit_s`` for its handshake; it
    gets the client that a PROXY header before the handshake names. ``is_proxy`` says who may send
    one. If ``full`` says so for its address, a connection is closed at once. If there are too many,
    the host with most of them makes room, or waits itself: others do not wait for it.
    """

    def __init__(
        self,
        listener: socket.socket,
        factory: Callable[[Address | None], asyncio.BaseProtocol],
        context: ssl.SSLContext,
        *,
        limit_s: float,
        refused: Refused,
        full: Callable[[str], bool] = lambda _: False,
        is_proxy: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._listener = listener
        self._factory = factory
        self._context = context
        self._limit_s = limit_s
        self._refused = refused
        self._full = full
        self._is_proxy = is_proxy
        self._loop = asyncio.get_running_loop()
        self._turns = Turns.of(self._loop)
        # The oldest first; the same by hosts; and those that wait to begin.
        self._handshakes: dict[_Handshake, None] = {}
        self._crowds: Crowds[_Handshake] = Crowds()
        self._waiting: deque[_Handshake] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None
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
        for timer in (self._pause, self._look):
            if timer is not None:
                timer.cancel()
        for waiting in self._waiting:
            waiting.connection.close()
        self._waiting.clear()
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
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_PER_TURN):
            try:
                connection, peer = self._listener.accept()
            except OSError as error:
                if error.errno in _LACKING:
                    self._loop.remove_reader(self._listener)
                    self._pause = self._loop.call_later(_PAUSE_S, self._resume)
                return
            if self._full(peer[0]):
                connection.close()
                self._refused("max-clients", "too many clients", peer[:2])
                continue
            connection.setblocking(False)
            self._admit(_Handshake(connection, peer[:2], self._loop.time()))

    def _admit(self, handshake: _Handshake) -> None:
        """Begin a handshake, or let it wait if its host has as many as any other."""
        if len(self._handshakes) < MOST_HANDSHAKES or self._make_room(handshake.peer[0]):
            self._begin(handshake)
        elif len(self._waiting) < MOST_WAITING:
            self._waiting.append(handshake)
            self._look_later()
        else:
            handshake.connection.close()
            self._refused("tls-many", "too many handshakes from one host", handshake.peer)

    def _make_room(self, address: str) -> bool:
        late = self._late()
        if late:
            ((host, _),) = Counter(each.peer[0] for each in late).most_common(1)
            self._give_up(next(each for each in late if each.peer[0] == host))
            return True
        crowd = self._crowds.largest()
        if len(crowd) <= self._crowds.count(address) + 1:
            return False
        idle = [each for each in crowd if each.since is not None]
        if idle:
            self._give_up(next((each for each in idle if not each.heard), idle[0]))
        return bool(idle)

    def _late(self) -> list[_Handshake]:
        """Return those whose clients make us wait, of all that said nothing if there are any."""
        before = self._loop.time() - _LEAST_S
        late = [
            each for each in self._handshakes if each.since is not None and each.since <= before
        ]
        return [each for each in late if not each.heard] or late

    def _give_up(self, handshake: _Handshake) -> None:
        del self._handshakes[handshake]
        self._crowds.discard(handshake)
        handshake.give_up()

    def _look_later(self) -> None:
        if self._look is None:
            self._look = self._loop.call_later(_LEAST_S / 3, self._look_now)

    def _look_now(self) -> None:
        """Let those that wait begin instead of those that are late."""
        self._look = None
        for late in self._late()[: len(self._waiting)]:
            self._give_up(late)
        self._begin_waiting()
        if self._waiting:
            self._look_later()

    def _begin_waiting(self) -> None:
        while self._waiting and len(self._handshakes) < MOST_HANDSHAKES:
            handshake = self._waiting.popleft()
            handshake.since = self._loop.time()
            self._begin(handshake)

    def _begin(self, handshake: _Handshake) -> None:
        self._handshakes[handshake] = None
        self._crowds.add(handshake, handshake.peer[0])
        task = handshake.task = self._loop.create_task(self._serve(handshake), name="tls")
        self._tasks.add(task)
        task.add_done_callback(functools.partial(self._over, handshake))

    def _over(self, handshake: _Handshake, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._handshakes.pop(handshake, None)
        self._crowds.discard(handshake)
        if not handshake.handed_over:
            handshake.connection.close()
        self._begin_waiting()

    async def _serve(self, handshake: _Handshake) -> None:
        def refuse(kind: str, problem: str) -> None:
            self._refused(kind, problem, handshake.peer)

        try:
            await self._shake(handshake)
        except asyncio.CancelledError:
            if not handshake.late:
                raise
            took_s = self._loop.time() - (handshake.since or 0.0)
            if handshake.heard:
                refuse("tls", f"no TLS handshake in {took_s:.0f} s")
            else:
                refuse("tls-silent", f"nothing in {took_s:.0f} s")
        except ssl.SSLError as error:
            if error.reason in _PLAIN:
                refuse("tls-plain", "plain HTTP where TLS is spoken")
            else:
                reason = (error.reason or "unknown reason").replace("_", " ").lower()
                refuse("tls", f"the TLS handshake failed: {reason}")
        except OSError:
            refuse("tls", "the client left during the TLS handshake")

    async def _shake(self, handshake: _Handshake) -> None:
        # Until a client says something, it costs a descriptor, and no memory for TLS.
        with self._limited(handshake):
            if self._is_proxy(handshake.peer[0]):
                try:
                    await self._take_proxy_header(handshake)
                except ValueError as problem:
                    self._refused("proxy", f"invalid PROXY header: {problem}", handshake.peer)
                    return
            handshake.heard = bool(await self._peek(handshake.connection, 1))
        if not handshake.heard:
            self._refused("tls-silent", "", handshake.peer)
            return
        handshake.since = None
        await self._turns.begin_request(handshake.peer[0])
        handshake.since = self._loop.time()
        with self._limited(handshake):
            handshake.handed_over = True
            await self._loop.connect_accepted_socket(
                functools.partial(self._factory, handshake.client),
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

    async def _take_proxy_header(self, handshake: _Handshake) -> None:
        """Read a PROXY header if there is one, and not a byte more; raises ValueError."""
        header, connection = b"", handshake.connection
        while data := await self._peek(connection, MAX_HEADER_BYTES):
            found = read_proxy_header(header + data)
            if found is None:
                header += connection.recv(len(data))
                continue
            size, client = found
            if header and not size:
                raise ValueError("something else that begins like one")
            if size:
                connection.recv(size - len(header))
            if client is not None:
                handshake.peer = handshake.client = client
                self._crowds.add(handshake, client[0])
            return
        if header:
            raise ValueError("it ends too early")

    async def _peek(self, connection: socket.socket, size: int) -> bytes:
        """Wait until the client says something, and leave it there; b"" if it leaves before."""
        while True:
            readable = self._loop.create_future()
            self._loop.add_reader(connection, _set, readable)
            try:
                await readable
            finally:
                self._loop.remove_reader(connection)
            try:
                return connection.recv(size, socket.MSG_PEEK)
            except (BlockingIOError, InterruptedError):
                continue
            except OSError:
                return b""


def _set(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)
