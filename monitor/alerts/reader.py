"""Reads a topic, judges its messages, and commits what they change together with the offsets.

The offsets in the database decide what has been read; those of the bus are a hint. Nothing that was
judged counts before it is committed: after a failed or lost commit, states and offsets are read
from the database again, and the same messages are judged from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from monitor.alerts import tables
from monitor.alerts.incident_log import log_changes
from monitor.alerts.incidents import Changes, State
from monitor.alerts.intake import Intake
from monitor.backoff import Backoff
from monitor.bus import Assignment, Bus, Consumer, Record
from monitor.errors import MonitorError
from monitor.log_limits import OutageLog
from monitor.store import RETRY_S, Connection, Store

__all__ = ["Judge", "TopicReader"]

logger = logging.getLogger("monitor.alerts")

_POLL_RECORDS = 2000
_POLL_S = 0.5
_TIMEOUT_S = 20.0
# Offsets of messages that change nothing are committed this often.
_OFFSETS_S = 5.0
# How often judges look for what changes without a message.
_IDLE_S = 5.0
# What waited when it began to read is judged by then.
_CATCH_UP_S = 60.0
# Judged messages that are read again, to recognize those that a producer publishes twice.
_AGAIN_RECORDS = 2000


class Judge(Protocol):
    """What judges the messages of a topic; called in a thread, one call at a time."""

    def load(self, states: Iterable[tuple[str, str, State]]) -> None:
        """Forget everything, and take these states of rules and subjects."""

    def remember(self, records: Sequence[Record]) -> None:
        """Recognize messages that were judged before, if they come again."""

    def judge(self, records: Sequence[Record], late: Sequence[bool]) -> Changes:
        """Return what messages change, without changing anything.

        Those are ``late`` that were published long ago, or before they could be read.
        """

    def idle(self) -> Changes:
        """Return what has changed without a message; called every few seconds."""

    def apply(self, changes: Changes) -> None:
        """Take changes that are committed."""

    def write(self, connection: Connection) -> None:
        """Write more with the offsets, in the same transaction."""


class TopicReader:
    """A consumer of one topic; ``clock`` gives s since the epoch.

    ``group_wait`` is how long (s) the notifier waits before it looks at a change.
    """

    def __init__(
        self,
        judge: Judge,
        *,
        bus: Bus,
        store: Store,
        topic: str,
        group: str,
        thread: ThreadPoolExecutor,
        group_wait: Callable[[], float],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._judge = judge
        self._bus = bus
        self._store = store
        self._topic = topic
        self._group = group
        self._thread = thread
        self._group_wait = group_wait
        self._clock = clock
        self._in_step = False
        self._stored: dict[int, int] = {}
        # By partition, offsets that were judged and not committed; they change nothing.
        self._judged: dict[int, int] = {}
        self._committed_at = 0.0
        self._idle_at = 0.0
        self._resumed_at = 0.0
        self._intake = Intake()
        self._topic_id: str | None = None
        self._full = False
        # The partitions that the log names.
        self._said: list[int] = []
        self.outage = OutageLog(logger, outcome="judging paused, trying again", level=logging.ERROR)
        # Whether the last commit failed: a database that can be read may still take no rows.
        self._refused = False
        self._backoff = Backoff(*RETRY_S)
        self.stopping = asyncio.Event()
        self.ended = asyncio.Event()
        self.ended.set()

    @property
    def catching_up(self) -> bool:
        """Whether it still reads messages from before it could read them."""
        return bool(self._intake.behind)

    @property
    def busy(self) -> bool:
        """Whether the last read was full, so that more messages wait."""
        return self._full

    @property
    def partitions(self) -> int:
        """How many partitions are assigned."""
        return len(self._stored)

    async def run(self) -> None:
        """Read until cancelled, or until ``stopping`` is set."""
        self.ended.clear()
        self._in_step = False
        self._stored.clear()
        consumer = self._bus.consumer(
            self._topic,
            group=self._group,
            assignment=Assignment(assigned=self._assigned, revoked=self._revoked),
        )
        try:
            await self._read(consumer)
            if self._in_step and self._judged:
                with contextlib.suppress(MonitorError, tables.MovedError):
                    await self._commit(Changes(), consumer, ())
        finally:
            try:
                await consumer.close()
            finally:
                self._intake.behind.clear()
                self._full = False
                self.ended.set()

    async def _read(self, consumer: Consumer) -> None:
        loop = asyncio.get_running_loop()
        while not self.stopping.is_set():
            try:
                if not self._in_step and consumer.assignment():
                    await self._resynchronize(consumer)
                    self._resumed_at = loop.time()
                records = await consumer.poll(max_records=_POLL_RECORDS, timeout_s=_POLL_S)
                # What waits belongs to the same outage.
                full = len(records) >= _POLL_RECORDS // 2
                self._full = self._full or full
                if not self._in_step:
                    continue  # they come again
                changes = Changes()
                if records:
                    judge = functools.partial(self._judge_all, records)
                    changes = await loop.run_in_executor(self._thread, judge)
                else:
                    self._intake.behind.clear()
                overdue = loop.time() >= self._committed_at + _OFFSETS_S
                if changes or (overdue and self._judged):
                    await self._commit(changes, consumer, records)
                # Even if every message changes something, as those of a site that is down do. Those
                # from before may be of a job that was stopped since: they would open it again.
                due = loop.time() >= self._idle_at + _IDLE_S
                if self._in_step and due and self._is_current(loop.time()):
                    self._idle_at = loop.time()
                    changes = await loop.run_in_executor(self._thread, self._judge.idle)
                    if changes:
                        await self._commit(changes, consumer, ())
                # Only now: the incidents of the last messages are committed.
                self._full = full
            except tables.MovedError as error:
                logger.warning("%s; continuing from the stored offsets", error)
                self._in_step = False
            except MonitorError as error:
                self.outage.failed(str(error), cause=error)
                self._in_step = False
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._backoff.next_delay()):
                        await self.stopping.wait()

    def _is_current(self, now: float) -> bool:
        """Whether it has read what waited, which it cannot know of a partition without messages."""
        return not self.catching_up or now >= self._resumed_at + _CATCH_UP_S

    def _judge_all(self, records: Sequence[Record]) -> Changes:
        """Judge messages, in the thread; the loop touches nothing of this reader meanwhile."""
        taken = self._intake.take(records, now=self._clock())
        if taken.known:
            self._judge.remember(taken.known)
        changes = self._judge.judge(taken.new, taken.late) if taken.new else Changes()
        self._judged.update(taken.judged)
        return changes

    async def _resynchronize(self, consumer: Consumer) -> None:
        """Continue at the stored offsets, from the stored states."""
        places = sorted(consumer.assignment())
        now = self._clock()

        def load(
            connection: Connection,
        ) -> tuple[Mapping[int, tables.Offset], list[tuple[str, str, State]]]:
            return (
                tables.begin(connection, self._topic, places, now),
                tables.load_states(connection, self._topic, places),
            )

        offsets, states = await self._store.transaction(load, timeout=_TIMEOUT_S)
        await asyncio.get_running_loop().run_in_executor(
            self._thread, functools.partial(self._judge.load, states)
        )
        self._judged.clear()
        self._topic_id = consumer.topic_id()
        self._stored = {place: offsets[place].next_offset for place in places}
        start = {place: offsets[place].start(self._topic_id) for place in places}
        begin = {
            place: offsets[place].began_at for place in places if offsets[place].next_offset == 0
        }
        self._intake.begin_at(start, begin, now=now)
        for place in places:
            await consumer.seek(place, start[place], again=_AGAIN_RECORDS)
        self._in_step = consumer.assignment() == frozenset(places)
        if not self._refused:
            self._recovered()
        if places != self._said:
            self._said = places
            logger.info("%s: judging partitions %s", self._topic, places)

    async def _commit(
        self, changes: Changes, consumer: Consumer, records: Sequence[Record]
    ) -> None:
        """Commit what these messages change, and the offsets of all that are judged."""
        now = self._clock()
        wanted = dict(self._judged)
        expected = {place: self._stored[place] for place in wanted}
        place_of = {record.key: record.partition for record in records if changes.states}
        places = {key: place_of.get(key[1], min(self._stored)) for key in changes.states}

        def write(connection: Connection) -> dict[str, str]:
            self._judge.write(connection)
            return tables.write(
                connection,
                changes,
                source=self._topic,
                places=places,
                expected=expected,
                wanted=wanted,
                topic_id=self._topic_id,
                now=now,
                look_at=now + self._group_wait(),
            )

        try:
            adopted = await self._store.transaction(write, timeout=_TIMEOUT_S)
        except MonitorError:
            self._refused = True
            raise
        self._refused = False
        self._recovered()
        self._stored.update(wanted)
        self._judged.clear()
        self._committed_at = asyncio.get_running_loop().time()
        log_changes(changes)
        if adopted:
            # Another instance has opened an incident of the subject; take it from the table.
            self._in_step = False
        else:
            await asyncio.get_running_loop().run_in_executor(
                self._thread, functools.partial(self._judge.apply, changes)
            )
        if wanted:
            try:
                await consumer.commit(wanted)
            except MonitorError as error:
                logger.debug("offsets are stored, but committing them to the bus failed: %s", error)

    def _recovered(self) -> None:
        self._backoff.reset()
        self.outage.recovered("judging resumed: the database is available again")

    async def _assigned(self, places: Sequence[int]) -> Mapping[int, int]:
        """Read the stored offsets before the next message."""
        del places
        self._in_step = False
        return {}

    async def _revoked(self, places: Sequence[int]) -> None:
        """Forget the partitions; everything that changed something is committed."""
        self._in_step = False
        for place in places:
            self._stored.pop(place, None)
        self._intake.forget(places)
