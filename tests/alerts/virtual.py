"""A world for the part in virtual time: a loop that never waits, a log, and one database in memory.

Everything is in this thread, so the same acts give the same run. A process can die at each point
at which something of it leaves it: before and after each commit, and before and after a message.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar, TypeVar, cast
from unittest.mock import patch

from monitor.alerts.part import Alerts
from monitor.alerts.receivers import Message, Outcome, Target
from monitor.alerts.settings import AlertsSettings
from monitor.bus import Assignment, Bus, Consumer, Record
from monitor.errors import UnavailableError
from monitor.store import Connection, Store
from monitor.store import migrate as migrations
from monitor.store.interface import Dialect
from monitor.store.sqlite import SqliteConnection
from tests.alerts.running import TOPIC, Jobs

T = TypeVar("T")

BEGIN = 1_700_000_000.0
PARTITIONS = 2
HANGS_S = 15.0


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time jumps to the next timer whenever nothing is ready; executors run inline."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__()

    def time(self) -> float:
        return self.now

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - for the one that awaits it
            future.set_exception(error)
        return future

    def _run_once(self) -> None:
        private = cast("Any", self)
        if not private._ready:
            assert private._scheduled, "nothing will ever happen"
            self.now = max(self.now, private._scheduled[0].when())
        cast("Any", super())._run_once()


class Process:
    """One run of the part; what it does after its death has no effect."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.dead = False
        self.dies_in: int | None = None
        clock = functools.partial(world.clock, name)
        self.part = Alerts(
            world.settings,
            bus=cast("Bus", _Ports(world, self)),
            store=_Seat(world, self),
            jobs=world.jobs,
            clock=clock,
            me=name,
        )
        self.part._targets = [
            cast("Target", _Target(world, self, receiver.name))
            for receiver in world.settings.receivers
        ]
        self.task = asyncio.get_running_loop().create_task(self.part.run())

    async def point(self) -> None:
        """Die here, if it is time."""
        if not self.dead and self.dies_in is not None:
            self.dies_in -= 1
            if self.dies_in < 0:
                self.die()
        if self.dead:
            await asyncio.Event().wait()

    def die(self) -> None:
        self.dead = True
        self.task.cancel()

    async def gone(self) -> None:
        """Wait until its tasks have ended, and pass on what they should not have ended with."""
        if self.dead:
            self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task
        await self.part.close()


class World:
    """What processes share, and what goes wrong with it."""

    def __init__(self, settings: AlertsSettings) -> None:
        self.loop = VirtualLoop()
        self.settings = settings
        self.jobs = Jobs()
        self.log: list[list[Record]] = [[] for _ in range(PARTITIONS)]
        self.published = asyncio.Event()
        self.groups: dict[str, _Group] = {}
        self.raw = _new_database()
        self.away = False
        self.answers_lost = 0
        """How many transactions commit and do not say so."""
        self.ahead: dict[str, float] = {}
        self.receivers = {receiver.name: Receiver() for receiver in settings.receivers}
        self.processes: dict[str, Process] = {}
        self.committed: Callable[[Process], None] = lambda _: None
        self._listeners: set[asyncio.Queue[str | None]] = set()
        self._held = contextlib.ExitStack()
        modules = ("lease", "notifier", "sender")
        for module in modules:
            times = SimpleNamespace(time=self.now, monotonic=self.loop.time)
            self._held.enter_context(patch(f"monitor.alerts.{module}.time", times))

    def now(self) -> float:
        """Return the true time, s since the epoch."""
        return BEGIN + self.loop.now

    def clock(self, name: str) -> float:
        """Return the time of day of a process's host."""
        return self.now() + self.ahead.get(name, 0.0)

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    async def start(self, name: str) -> None:
        """Start a process unless it runs."""
        old = self.processes.get(name)
        if old is not None:
            if not old.dead:
                return
            await old.gone()
        self.processes[name] = Process(self, name)

    def alive(self) -> list[Process]:
        return [process for process in self.processes.values() if not process.dead]

    def publish(self, partition: int, key: str, value: bytes) -> None:
        records = self.log[partition]
        records.append(Record(TOPIC, partition, len(records), key, {}, value, self.now()))
        self.published.set()
        self.published = asyncio.Event()

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return self.raw.execute(sql, values).fetchall()

    def notify(self, payload: str | None) -> None:
        for queue in self._listeners:
            queue.put_nowait(payload)

    @contextlib.contextmanager
    def listener(self) -> Iterator[asyncio.Queue[str | None]]:
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            yield queue
        finally:
            self._listeners.discard(queue)

    def close(self) -> None:
        async def end() -> None:
            for process in self.processes.values():
                process.die()
                await process.gone()

        try:
            self.run(end())
        finally:
            self._held.close()
            self.loop.close()
            self.raw.close()


@functools.cache
def _migrated() -> bytes:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as raw:
        migrations.apply(SqliteConnection(raw), "database")
        return raw.serialize()


def _new_database() -> sqlite3.Connection:
    raw = sqlite3.connect(":memory:", isolation_level=None)
    raw.deserialize(_migrated())
    return raw


class _Seat(Store):
    """The database as one process sees it."""

    dialect: ClassVar[Dialect] = "sqlite"
    server = "database"

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process

    async def transaction(self, function: Callable[[Connection], T], *, timeout: float = 30.0) -> T:
        world = self._world
        await self._process.point()
        await asyncio.sleep(0)
        if world.away:
            raise UnavailableError(self.server, "away")
        connection = SqliteConnection(world.raw)
        world.raw.execute("BEGIN")
        try:
            result = function(connection)
        except BaseException:
            world.raw.execute("ROLLBACK")
            raise
        world.raw.execute("COMMIT")
        world.committed(self._process)
        for _, payload in connection.notifications:
            world.notify(payload)
        await self._process.point()
        if world.answers_lost > 0:
            world.answers_lost -= 1
            raise UnavailableError(self.server, "the connection was lost")
        return result

    async def read(self, function: Callable[[Connection], T], *, timeout: float = 30.0) -> T:
        await self._process.point()
        await asyncio.sleep(0)
        if self._world.away:
            raise UnavailableError(self.server, "away")
        return function(SqliteConnection(self._world.raw))

    async def listen(self, channel: str) -> AsyncGenerator[str | None, None]:
        with self._world.listener() as queue:
            yield None
            while True:
                yield await queue.get()

    async def start(self) -> None: ...

    async def migrate(self, *, owner: str | None = None) -> list[str]:
        return []

    async def reset(self) -> None: ...

    async def close(self) -> None: ...


class _Ports:
    """The bus as one process sees it."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process

    def consumer(
        self, topic: str, *, group: str | None, assignment: Assignment | None = None
    ) -> Consumer:
        assert topic == TOPIC
        assert group is not None
        assert assignment is not None
        shared = self._world.groups.setdefault(group, _Group())
        return cast("Consumer", _Member(self._world, self._process, shared, assignment))


@dataclass(eq=False)
class _Group:
    members: list[_Member] = field(default_factory=list)
    generation: int = 0
    committed: dict[int, int] = field(default_factory=dict)

    def change(self, members: list[_Member]) -> None:
        self.members = members
        self.generation += 1

    def share(self, member: _Member) -> list[int]:
        place = self.members.index(member)
        return [p for p in range(PARTITIONS) if p % len(self.members) == place]


class _Member:
    """A member of a group; another may have its partitions before it knows that it lost them."""

    def __init__(
        self, world: World, process: Process, group: _Group, assignment: Assignment
    ) -> None:
        self._world = world
        self._process = process
        self._group = group
        self._callbacks = assignment
        self._generation = -1
        self._positions: dict[int, int] = {}
        group.change([*group.members, self])

    def assignment(self) -> frozenset[int]:
        return frozenset(self._positions)

    def topic_id(self) -> str | None:
        return None

    async def poll(self, *, max_records: int = 500, timeout_s: float = 1.0) -> list[Record]:
        await self._process.point()
        if self._generation != self._group.generation:
            self._generation = self._group.generation
            if self._positions and self._callbacks.revoked is not None:
                await self._callbacks.revoked(list(self._positions))
            mine = self._group.share(self)
            known = self._group.committed
            self._positions = {place: known.get(place, 0) for place in mine}
            self._positions |= await self._callbacks.assigned(mine)
            return []
        found = self._take(max_records)
        if not found:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._world.published.wait()
            found = self._take(max_records)
        return found

    def _take(self, most: int) -> list[Record]:
        found: list[Record] = []
        for place, position in self._positions.items():
            some = self._world.log[place][position : position + most - len(found)]
            self._positions[place] += len(some)
            found += some
        return found

    async def seek(self, partition: int, offset: int, *, again: int = 0) -> None:
        if partition in self._positions:
            self._positions[partition] = max(0, offset - again)

    async def commit(self, offsets: Mapping[int, int]) -> None:
        await self._process.point()
        self._group.committed.update(offsets)

    async def close(self) -> None:
        self._group.change([each for each in self._group.members if each is not self])
        self._positions = {}


@dataclass
class Got:
    """A message that a receiver took: what, about which incidents, and from which process."""

    delivery: str
    event: str
    incidents: tuple[str, ...]
    process: Process


@dataclass
class Receiver:
    """What a receiver took, and how it behaves now."""

    mood: str = "accepts"
    got: list[Got] = field(default_factory=list)
    excused: set[str] = field(default_factory=set)
    """Deliveries that may come again: what took them did not say so, or nobody heard it."""


class _Target:
    key = ""
    refresh_s = None

    def __init__(self, world: World, process: Process, receiver: str) -> None:
        self.receiver = receiver
        self._process = process
        self._there = world.receivers[receiver]

    async def send(self, message: Message) -> Outcome:
        there = self._there
        await self._process.point()
        await asyncio.sleep(0.05)
        mood = there.mood
        if mood in ("accepts", "lies"):
            ids = tuple(each.id for each in message.incidents)
            there.got.append(Got(message.delivery, message.event, ids, self._process))
        if mood == "accepts":
            await self._process.point()
            return Outcome(accepted=True, said="200")
        if mood == "lies":
            there.excused.add(message.delivery)
        if mood == "hangs":
            await asyncio.sleep(HANGS_S)
        return Outcome(
            accepted=False,
            said=mood,
            refused=mood == "refuses",
            retry_after_s=30.0 if mood == "later" else None,
        )


def moods() -> Sequence[str]:
    """Return all ways in which a receiver can behave."""
    return ("accepts", "fails", "refuses", "hangs", "lies", "later")
