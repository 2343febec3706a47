"""The bus on the spool: one thread commits published messages in groups."""

# ruff: noqa: D102 - interface.py documents the methods

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import msgspec

from monitor.bus.interface import Assignment, Bus, Consumer
from monitor.bus.settings import BusSettings
from monitor.bus.spool_consumer import SpoolConsumer
from monitor.bus.spool_file import UNREADABLE, Outgoing, SpoolFile
from monitor.bus.spool_opening import open_spool, set_aside_if_damaged
from monitor.bus.spool_shared import SharedReads
from monitor.log_limits import OutageLog
from monitor.metrics import Metric
from monitor.part import Health, State, counted
from monitor.sqlite.connection import settle
from monitor.sqlite.file import OpenFile, Writing

__all__ = ["SpoolBus"]

logger = logging.getLogger("monitor.bus")

# A group is committed this long after its first message: less than the half second of messages
# that a kill -9 may lose, and few enough syncs for any disk.
_GROUP_S = 0.2
_RETRY_S = 1.0
_TRIM_EVERY_S = 5.0
# Most bytes that wait in memory for the disk.
_WAITING_BYTES = 16 * 1024 * 1024
# Memory of a message in addition to its value.
_OVERHEAD_BYTES = 300
_CLOSE_S = 10.0
_SETTLE_S = 0.2
_encode = msgspec.json.Encoder().encode

# ticket, bytes, topic, key, headers, value, timestamp
_Waiting = tuple[int, int, str, str | None, Mapping[str, str], bytes, float]


class SpoolBus(Bus):
    """The bus with all topics in one SQLite file."""

    def __init__(self, settings: BusSettings) -> None:
        self._path = settings.path()
        self._max_bytes = settings.max_bytes
        self._changed = threading.Condition()
        # Guarded by _changed.
        self._pending: deque[_Waiting] = deque()
        self._pending_bytes = 0
        self._last_ticket = 0
        self._done_ticket = 0
        self._lost: deque[tuple[int, int]] = deque(maxlen=1000)
        self._waiters: list[tuple[int, Callable[[], object]]] = []
        self._published: dict[str, int] = {}
        # By topic, messages that expired before a group read them; in Kafka only.
        self._expired: dict[str, int] = {}
        self._dropped = 0
        self._closing = False
        # Used by the writer.
        self._file: SpoolFile | None = None
        # Written by the writer, read by anyone.
        self._spooled = 0
        self._outage = OutageLog(logger)
        self._writing = Writing(self._path)
        self._writer: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news: set[asyncio.Event] = set()
        # By topic.
        self._shared: dict[str, SharedReads] = {}

    async def start(self) -> None:
        """Open the file and start the writer; see :func:`open_spool` for what it raises."""
        self._loop = asyncio.get_running_loop()
        with self._writing:
            self._file = await asyncio.to_thread(open_spool, self._path, max_bytes=self._max_bytes)
        self._closing = False
        self._writer = threading.Thread(target=self._write, name="spool-writer", daemon=True)
        self._writer.start()

    # Publishing.

    def publish(
        self, topic: str, *, value: bytes, key: str | None = None, headers: Mapping[str, str]
    ) -> int:
        size = len(value) + _OVERHEAD_BYTES
        with self._changed:
            self._last_ticket = ticket = self._last_ticket + 1
            if self._closing:
                self._lose(ticket)
                return ticket
            self._pending.append((ticket, size, topic, key, headers, value, time.time()))
            self._pending_bytes += size
            self._published[topic] = self._published.get(topic, 0) + 1
            while self._pending_bytes > _WAITING_BYTES and len(self._pending) > 1:
                oldest = self._pending.popleft()
                self._pending_bytes -= oldest[1]
                self._lose(oldest[0])
            if len(self._pending) == 1:
                self._changed.notify_all()
        return ticket

    def _lose(self, ticket: int) -> None:
        self._dropped += 1
        if self._lost and self._lost[-1][1] == ticket - 1:
            self._lost[-1] = (self._lost[-1][0], ticket)
        else:
            self._lost.append((ticket, ticket))

    def count_dropped(self, count: int) -> None:
        """Count lost messages; callable in any thread."""
        with self._changed:
            self._dropped += count

    async def committed(self, *tickets: int, timeout_s: float = 10.0) -> bool:
        loop = asyncio.get_running_loop()
        reached: asyncio.Future[None] = loop.create_future()

        def reach() -> None:
            if not reached.done():
                reached.set_result(None)

        with self._changed:
            last = max(tickets, default=self._last_ticket)
            if self._done_ticket < last:
                self._waiters.append((last, partial(loop.call_soon_threadsafe, reach)))
            else:
                reach()
        try:
            async with asyncio.timeout(timeout_s):
                await reached
        except TimeoutError:
            return False
        with self._changed:
            return not any(
                first <= ticket <= end for first, end in self._lost for ticket in tickets
            )

    # In the thread of the writer.

    def _write(self) -> None:
        next_trim = time.monotonic()
        try:
            while True:
                with self._changed:
                    if not self._pending and not self._closing:
                        self._changed.wait(_TRIM_EVERY_S)
                    if self._pending and not self._closing:
                        self._changed.wait_for(lambda: self._closing, _GROUP_S)
                    closing = self._closing
                written = self._write_group()
                if written and time.monotonic() >= next_trim:
                    next_trim = time.monotonic() + _TRIM_EVERY_S
                    self._tidy()
                if closing:
                    return
                if not written:
                    with self._changed:
                        self._changed.wait_for(lambda: self._closing, _RETRY_S)
        finally:
            file, self._file = self._file, None
            if file is not None:
                file.close()

    def _write_group(self) -> bool:
        file = self._file
        assert file is not None
        with self._changed:
            group = list(self._pending)
            size = self._pending_bytes
            self._pending.clear()
            self._pending_bytes = 0
        try:
            dropped = 0
            if group:
                with self._writing:
                    dropped = file.append(
                        [
                            Outgoing(topic, key, _encode(headers), value, timestamp)
                            for _, _, topic, key, headers, value, timestamp in group
                        ]
                    )
        except UNREADABLE as error:
            self._put_back(group, size)
            self._outage.failed(f"cannot write the spool {self._path}: {error}")
            set_aside_if_damaged(file, error)
            return False
        if group:
            self._outage.recovered(
                f"writing the spool {self._path} again, {self._dropped} messages dropped so far"
            )
        if dropped:
            logger.warning("spool: full, dropped the oldest %d messages", dropped)
        self._spooled += len(group)
        if group:
            with self._changed:
                self._dropped += dropped
                self._reached(group[-1][0])
        return True

    def _put_back(self, group: list[_Waiting], size: int) -> None:
        with self._changed:
            lost = 0
            while lost < len(group) and self._pending_bytes + size > _WAITING_BYTES:
                size -= group[lost][1]
                self._lose(group[lost][0])
                lost += 1
            self._pending.extendleft(reversed(group[lost:]))
            self._pending_bytes += size
            if lost:
                self._reached(group[lost - 1][0])

    def _reached(self, ticket: int) -> None:
        """Wake the callers that wait for this ticket or an earlier one, and the consumers."""
        self._done_ticket = max(self._done_ticket, ticket)
        waiting = self._waiters
        self._waiters = [waiter for waiter in waiting if waiter[0] > self._done_ticket]
        if self._loop is None or self._loop.is_closed():
            return
        for last, wake in waiting:
            if last <= self._done_ticket:
                wake()
        self._loop.call_soon_threadsafe(self._tell_news)

    def _tidy(self) -> None:
        file = self._file
        assert file is not None
        try:
            file.trim_read()
            self._spooled = file.count()
        except UNREADABLE as error:
            logger.warning("spool: cannot trim %s: %s", self._path, error)
            set_aside_if_damaged(file, error)

    # Consuming.

    def consumer(
        self, topic: str, *, group: str | None, assignment: Assignment | None = None
    ) -> Consumer:
        return SpoolConsumer(
            self._path,
            topic,
            group=group,
            assignment=assignment,
            max_bytes=self._max_bytes,
            news=self._news,
            shared=self._shared.setdefault(topic, SharedReads()),
        )

    def _tell_news(self) -> None:
        for event in self._news:
            event.set()

    def state(self) -> State:
        problem = self._outage.problem or self._writing.problem()
        if problem is not None:
            return State(Health.DEGRADED, problem)
        return State(Health.OK, f"{counted(self._spooled, 'message')} spooled")

    def open_files(self) -> Sequence[OpenFile]:
        file = self._file
        return () if file is None else (file.opened,)

    def metrics(self) -> Iterable[Metric]:
        with self._changed:
            published = [({"topic": topic}, float(n)) for topic, n in self._published.items()]
            dropped = float(self._dropped)
        yield Metric("bus_published_total", "counter", "Messages published.", published)
        yield Metric(
            "bus_spooled_messages", "gauge", "Messages in the spool.", [({}, float(self._spooled))]
        )
        yield Metric(
            "bus_dropped_total",
            "counter",
            "Messages dropped: full spool, or rejected by Kafka.",
            [({}, dropped)],
        )
        yield Metric(
            "consumer_expired_total",
            "counter",
            "Messages that Kafka deleted before the consumers read them.",
            [({"topic": topic}, float(count)) for topic, count in self._expired.items()],
        )

    async def close(self) -> None:
        opened = self.open_files()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        writer, self._writer = self._writer, None
        if writer is not None:
            await asyncio.to_thread(writer.join, _CLOSE_S)
            if not writer.is_alive() and opened and not any(file.lost() for file in opened):
                await asyncio.to_thread(settle, self._path, patience=_SETTLE_S)
