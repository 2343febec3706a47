"""A fair loop: what peers send is parsed in slices, and every connection has its turn.

One readable socket can bring megabytes at once (uvloop reads up to 32 times in a row), and a few
bytes can take long to parse. So a connection reads little at a time, parses it in small slices, and
stops when its share of this turn of the loop is used; the rest waits for a later turn. All of them
together use a limited part of each turn, in which hosts take turns, and of each host its
connections: so a thousand connections of one host wait for each other, and others do not. Those
that use much of the time wait in a line of their own. While
connections are within their shares, as honest ones are, everything is parsed as it arrives.

A connection that keeps using more than its share is closed.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import ClassVar, Generic, TypeVar, cast
from weakref import WeakKeyDictionary

from monitor.settings import Address
from monitor.transport.crowds import holder

__all__ = ["SLICE_BYTES", "Budget", "FairReading", "Turns"]

T = TypeVar("T")

# What is parsed between two looks at the clock. The smallest frames and chunks of a slice take
# about 2 ms.
SLICE_BYTES = 1024
# What is read from a socket at once, and so what a connection that waits for its turn holds.
_READ_BYTES = 16 * 1024
# s of a turn that one connection, and all together, may use for their input.
_SHARE_S = 0.0005
_TURN_S = 0.002
# About what (s) it takes to read that and forget it.
_FORGET_S = 0.00002
# s of a turn for connections that ended: thousands may be lost at once.
_ENDS_S = 0.002
# A connection that has used so much (s) more than its share in the long run is a heavy one.
_HEAVY_S = 0.1
# Requests, of all connections together, that may begin in one turn.
_REQUESTS = 4


class Budget:
    """How much of the loop's time a connection may use in the long run.

    It may use ``burst_s`` at once; ``share`` of the time passes it by. Time is an argument.
    """

    __slots__ = ("_at", "used_s")

    def __init__(self, now: float = 0.0) -> None:
        self.used_s = 0.0
        self._at = now

    def spend(self, took_s: float, now: float, *, burst_s: float, share: float) -> bool:
        """Count ``took_s``; return whether it is still within the budget."""
        self.used_s = max(0.0, self.used_s - (now - self._at) * share) + took_s
        self._at = now
        return self.used_s <= burst_s


class _Lines(Generic[T]):
    """A line for each owner; the head of each line goes next, line by line."""

    def __init__(self) -> None:
        self._lines: OrderedDict[Hashable, deque[T]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._lines)

    def add(self, owner: Hashable, each: T) -> None:
        """Put it at the end of its owner's line."""
        self._lines.setdefault(owner, deque()).append(each)

    def next(self) -> T:
        """Return who goes next."""
        owner, line = next(iter(self._lines.items()))
        each = line.popleft()
        if line:
            self._lines.move_to_end(owner)
        else:
            del self._lines[owner]
        return each


class Turns:
    """The turns of one loop: which connections wait, and what this turn has left for them."""

    _of: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, Turns]] = WeakKeyDictionary()

    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float] = time.thread_time
    ) -> None:
        """``clock`` measures work, in s; what other threads take meanwhile does not count."""
        self.clock = clock
        # One buffer for all: what is read into it is taken out before anything else is read.
        self.buffer = memoryview(bytearray(_READ_BYTES))
        # The connection that is served, for the log of what holds the loop.
        self.serving: FairReading | None = None
        self._loop = loop
        self._queue: _Lines[FairReading] = _Lines()
        self._requests: _Lines[asyncio.Future[None]] = _Lines()
        self._used_s = 0.0
        self._begun = 0
        # What is to be done for connections that ended, in their order.
        self._ends: deque[Callable[[], bool | None]] = deque()
        self._ends_used_s = 0.0
        self._next: asyncio.Handle | None = None

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Turns:
        """Return the turns of a loop."""
        found = cls._of.get(loop)
        if found is None:
            found = cls._of[loop] = cls(loop)
        return found

    @property
    def has_room(self) -> bool:
        """Whether a connection may be served at once: nobody waits, and the turn is not used up."""
        return not self._queue and self._used_s < _TURN_S

    def spend(self, took_s: float) -> None:
        """Count what a connection used of this turn, and of those before that were not used up."""
        self._used_s += took_s
        # Most turns are hardly used: to end each one would cost each message a callback.
        if self._used_s >= _TURN_S:
            self._expect_next()

    def wait(self, reading: FairReading) -> None:
        """Serve a connection when its turn comes."""
        # Of one host, those that use much wait for each other, and the rest not for them.
        self._queue.add((reading.owner, reading.is_heavy), reading)
        self._expect_next()

    def end(self, ending: Callable[[], bool | None]) -> bool:
        """Do what the end of a connection needs, now or in a later turn; return whether now.

        ``ending`` does it in pieces: it returns True as long as there is more to do.
        """
        now = not self._ends and self._ends_used_s < _ENDS_S
        self._ends.append(ending)
        if now:
            self._take_ends()
        self._expect_next()
        return now

    def _take_ends(self) -> None:
        clock, ends = self.clock, self._ends
        if not ends:
            return
        before = clock()
        while ends and self._ends_used_s < _ENDS_S:
            ending = ends.popleft()
            try:
                if ending():
                    ends.append(ending)
            except Exception as error:  # noqa: BLE001 - a defect must end one connection, not more
                self._loop.call_exception_handler(
                    {"message": "the end of a connection failed", "exception": error}
                )
            now = clock()
            self._ends_used_s += now - before
            before = now

    async def begin_request(self, address: str) -> None:
        """Wait until a turn has room for one more request of a peer's IP address."""
        if self._requests or self._begun >= _REQUESTS:
            turn: asyncio.Future[None] = self._loop.create_future()
            self._requests.add(holder(address), turn)
            self._expect_next()
            await turn
        else:
            self._begun += 1
            self._expect_next()

    def _expect_next(self) -> None:
        if self._next is None:
            self._next = self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._next = None
        self._used_s = self._ends_used_s = 0.0
        self._begun = 0
        self._take_ends()
        queue, requests = self._queue, self._requests
        while queue and self._used_s < _TURN_S:
            queue.next().take_turn()
        while requests and self._begun < _REQUESTS:
            request = requests.next()
            if not request.done():
                self._begun += 1
                request.set_result(None)
        if queue or requests or self._ends:
            self._expect_next()


class FairReading(asyncio.BufferedProtocol, ABC):
    """The receiving side of a connection.

    A subclass parses: :meth:`step` does a small piece of work, such as parsing one slice.
    """

    transport: asyncio.Transport

    # The peer's, if it has one.
    peername: Address | None = None

    # Whose turn its turns are: the connections of one host to one kind of listener.
    owner: Hashable = ""

    # The budget: s of the loop's time, at once and in the long run.
    burst_s: ClassVar[float] = 2.0
    share: ClassVar[float] = 0.05

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.turns = Turns.of(self.loop)
        # What was read and not parsed yet, and where that begins.
        self._input = b""
        self._at = 0
        self._budget = Budget()
        # Whether nothing is to be parsed now, and whether the transport reads.
        self._held = False
        self._reading = True
        self._waits = False
        # Whether what is read is forgotten, and how much was.
        self._discards = False
        self.forgotten_bytes = 0

    # What a subclass defines.

    @abstractmethod
    def step(self) -> None:
        """Do a piece of work that :attr:`has_work` promises; usually parse :meth:`next_slice`."""

    @abstractmethod
    def over_budget(self) -> None:
        """Close the connection: it takes too much of the loop's time."""

    @property
    @abstractmethod
    def peer(self) -> str:
        """The client's address, for the log."""

    @property
    def has_work(self) -> bool:
        """Whether something that was read is still to be parsed."""
        return self._at < len(self._input)

    @property
    def is_blocked(self) -> bool:
        """Whether nothing may be parsed now."""
        return self._held

    @property
    def is_heavy(self) -> bool:
        """Whether it has used much of the loop's time lately, or sends what nobody wants."""
        return self._discards or self._budget.used_s > _HEAVY_S

    def served(self) -> None:
        """Do what is due after a share of a turn, whatever was parsed in it."""

    # What a subclass uses.

    def next_slice(self) -> bytes:
        """Return what to parse next."""
        at = self._at
        data = self._input
        if at == 0 and len(data) <= SLICE_BYTES:
            self._input = b""
            return data
        self._at = at + SLICE_BYTES
        found = data[at : self._at]
        if self._at >= len(data):
            self._input, self._at = b"", 0
        return found

    def put_back(self, data: bytes) -> None:
        """Parse the end of a slice later."""
        if data:
            self._input = data + self._input[self._at :]
            self._at = 0

    def feed(self, data: bytes) -> None:
        """Take what was read; parse it now if the turn has room."""
        at = self._at
        self._input = self._input[at:] + data if at < len(self._input) else data
        self._at = 0
        if self._waits or not self.turns.has_room:
            self._settle()
        else:
            self._serve()

    def hold(self, held: bool) -> None:
        """Parse and read nothing while ``held``."""
        self._held = held and not self._discards
        self._settle()

    def drop_input(self) -> None:
        """Forget what was read and not parsed."""
        self._input, self._at = b"", 0

    def discard(self) -> None:
        """Forget what was read, and what is read from now on, a piece in each turn.

        A socket that is closed with unread input resets the connection: a client that sends
        everything before it reads would not get the answer.
        """
        self._discards = True
        self.drop_input()
        self.hold(False)

    # What asyncio and the turns call.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection over."""
        self.transport = cast("asyncio.Transport", transport)
        # A TLS transport does not know it any more once it is closed.
        found = transport.get_extra_info("peername")
        self.peername = found[:2] if isinstance(found, tuple) else None
        self.belongs_to(self.peername[0] if self.peername else "")

    def belongs_to(self, address: str) -> None:
        """Let it take the turns of the host at an IP address."""
        self.owner = type(self), holder(address)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to read into."""
        del sizehint
        return self.turns.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""
        if self._discards:
            self.forgotten_bytes += nbytes
            self._read_in_next_turn()
        else:
            self.feed(bytes(self.turns.buffer[:nbytes]))

    def take_turn(self) -> None:
        """Parse what waits."""
        self._waits = False
        if self._discards:
            self.turns.spend(_FORGET_S)
            self._settle()
        else:
            self._serve()

    # Inside.

    def _read_in_next_turn(self) -> None:
        if self._reading and not self.transport.is_closing():
            self._reading = False
            self.transport.pause_reading()
        if not self._waits:
            self._waits = True
            self.turns.wait(self)

    def _serve(self) -> None:
        """Parse for one share of the turn; wait for another turn if that is not all."""
        turns = self.turns
        clock = turns.clock
        began = now = clock()
        until = began + _SHARE_S
        turns.serving = self
        try:
            while self.has_work and not self.is_blocked:
                self.step()
                now = clock()
                if now >= until:
                    break
            self.served()
        except Exception as error:  # noqa: BLE001 - a defect must end one connection, not more
            self.loop.call_exception_handler(
                {
                    "message": f"serving {self.peer} failed",
                    "exception": error,
                    "transport": self.transport,
                }
            )
            self.drop_input()
            self.transport.abort()
            return
        finally:
            turns.serving = None
            turns.spend(now - began)
        if not self._budget.spend(
            now - began, self.loop.time(), burst_s=self.burst_s, share=self.share
        ):
            self.drop_input()
            self.over_budget()
        self._settle()

    def _settle(self) -> None:
        """Wait for a turn if something may be parsed; read if there is nothing to parse."""
        blocked, work = self.is_blocked, self.has_work
        if work and not blocked and not self._waits:
            self._waits = True
            self.turns.wait(self)
        reading = not (blocked or work)
        if reading is not self._reading and not self.transport.is_closing():
            self._reading = reading
            if reading:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()
