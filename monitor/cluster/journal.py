"""Stores reported states and events, and forwards the events to the bus.

State and event are committed in one transaction, so neither exists without the other. Then the
event is forwarded: published, committed to the spool, and marked as forwarded. After a crash
between the last two steps it is sent again, with the same id.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from monitor.backoff import Backoff
from monitor.bus import Bus
from monitor.cluster.states import Known, ScopeChanges
from monitor.cluster.watch import Scope
from monitor.errors import MonitorError
from monitor.log_limits import OutageLog
from monitor.messages import cloud_event, encode
from monitor.store import RETRY_S, Connection, Row, Store
from monitor.store.purge import delete_in_steps

__all__ = ["Journal"]

logger = logging.getLogger("monitor.cluster")

T = TypeVar("T")

# Events that are published together: the spool commits every 0.2 s.
_FORWARD = 1000
_PUBLISH = 100  # of them, published in one turn of the loop
_MARK = 200  # of them, marked in one transaction: some ms on SQLite, where all other writers wait
_BUS_RETRY_S = (0.5, 10.0)


class Journal:
    """The tables of one cluster; used in the thread of the loop.

    ``outage`` has the problem of the store or the bus, if any.
    """

    def __init__(
        self, store: Store, bus: Bus, *, cluster: str, topic: str, clock: Callable[[], float]
    ) -> None:
        self.outage = OutageLog(logger)
        self.reported: Counter[str] = Counter()
        self._store = store
        self._bus = bus
        self._cluster = cluster
        self._topic = topic
        self._clock = clock
        self._news = asyncio.Event()
        self._finishing = False
        self._stopping = asyncio.Event()

    async def load(self, scope: Scope) -> Known:
        """Return the stored states of a scope; retries until the store responds."""
        names = (self._cluster, scope.kind, scope.namespace)

        def read(connection: Connection) -> Known:
            states = connection.query(
                "SELECT uid, state FROM cluster_state"
                " WHERE cluster = %s AND kind = %s AND %s IN ('', namespace)",
                names,
            )
            marks = connection.query(
                "SELECT selector FROM cluster_scope"
                " WHERE cluster = %s AND kind = %s AND namespace = %s",
                names,
            )
            return Known(
                {uid: state.encode() for uid, state in states}, marks[0][0] if marks else None
            )

        return await self._until_done(lambda: self._store.read(read))

    async def keep_scopes(self, scopes: Sequence[Scope]) -> None:
        """Forget that other scopes were listed: the config no longer covers them.

        The states of their objects stay, to be compared when it covers them again.
        """

        def forget(connection: Connection) -> None:
            rows = connection.query(
                "SELECT kind, namespace FROM cluster_scope WHERE cluster = %s", (self._cluster,)
            )
            for row in rows:
                if not any(scope.covers(*row) for scope in scopes):
                    connection.execute(
                        "DELETE FROM cluster_scope"
                        " WHERE cluster = %s AND kind = %s AND namespace = %s",
                        (self._cluster, *row),
                    )

        await self._until_done(lambda: self._store.transaction(forget))

    async def commit(self, changes: ScopeChanges) -> None:
        """Write states and events in one transaction; retries until it is committed.

        It repeats a commit whose outcome is unknown; a repeat changes nothing.
        """
        now, scope = self._clock(), changes.scope
        # Only the last row of each object; in the order of their keys, so that two writers cannot
        # deadlock.
        rows = {row.uid: row for row in sorted(changes.rows, key=lambda row: row.uid)}
        gone = [uid for uid, row in rows.items() if row.state is None]

        def write(connection: Connection) -> list[str]:
            for uid in gone:
                connection.execute(
                    "DELETE FROM cluster_state WHERE cluster = %s AND uid = %s",
                    (self._cluster, uid),
                )
            connection.insert(
                "cluster_state",
                ("cluster", "uid", "kind", "namespace", "name", "state", "updated_at"),
                [
                    (self._cluster, uid, row.kind, row.namespace, row.name, text, now)
                    for uid, row in rows.items()
                    if (text := row.state and row.state.decode())
                ],
                "ON CONFLICT (cluster, uid) DO UPDATE SET kind = excluded.kind,"
                " namespace = excluded.namespace, name = excluded.name,"
                " state = excluded.state, updated_at = excluded.updated_at",
            )
            if changes.listed:
                connection.insert(
                    "cluster_scope",
                    ("cluster", "kind", "namespace", "selector", "listed_at"),
                    [(self._cluster, scope.kind, scope.namespace, changes.selector, now)],
                    "ON CONFLICT (cluster, kind, namespace) DO UPDATE SET"
                    " selector = excluded.selector, listed_at = excluded.listed_at",
                )
            new = [
                event
                for event in changes.events
                if not connection.query("SELECT 1 FROM model_event WHERE id = %s", (event.id,))
            ]
            connection.insert(
                "model_event",
                ("id", "cluster", "type", "source", "key", "time", "data"),
                [
                    (e.id, self._cluster, e.type, e.source, e.key, e.time, encode(e.data).decode())
                    for e in new
                ],
                "ON CONFLICT (id) DO NOTHING",
            )
            return [event.type for event in new]

        self.reported.update(await self._until_done(lambda: self._store.transaction(write)))
        if changes.events:
            self._news.set()

    async def forward(self) -> None:
        """Forward committed events, and new ones as they come, until :meth:`finish`."""
        while True:
            self._news.clear()
            while await self._forward_some():
                pass
            if self._finishing:
                return
            await self._news.wait()

    def stop_trying(self) -> None:
        """Make operations raise MonitorError from now on if the store is unavailable."""
        self._stopping.set()

    def finish(self) -> None:
        """Make :meth:`forward` return when no event is left."""
        self._finishing = True
        self._news.set()

    async def _forward_some(self) -> bool:
        """Publish the oldest unforwarded events, in order, and mark them; False without any."""
        rows = await self._until_done(
            lambda: self._store.read(
                lambda connection: connection.query(
                    "SELECT seq, id, type, source, key, time, data FROM model_event"
                    " WHERE cluster = %s AND forwarded_at IS NULL ORDER BY seq LIMIT %s",
                    (self._cluster, _FORWARD),
                )
            )
        )
        if not rows:
            return False
        backoff = Backoff(*_BUS_RETRY_S)
        while not await self._bus.committed(*await self._publish_all(rows)):
            self.outage.failed("the bus does not accept events")
            await asyncio.sleep(backoff.next_delay())
        for start in range(0, len(rows), _MARK):
            await self._mark(rows[start : start + _MARK])
        return True

    async def _mark(self, rows: Sequence[Row]) -> None:
        now = self._clock()

        def note(connection: Connection) -> None:
            for row in rows:
                connection.execute(
                    "UPDATE model_event SET forwarded_at = %s WHERE seq = %s", (now, row[0])
                )

        await self._until_done(lambda: self._store.transaction(note))

    async def _publish_all(self, rows: Sequence[Row]) -> list[int]:
        tickets: list[int] = []
        for start in range(0, len(rows), _PUBLISH):
            tickets += [self._publish(row) for row in rows[start : start + _PUBLISH]]
            await asyncio.sleep(0)
        return tickets

    def _publish(self, row: Row) -> int:
        _, id_, type_, source, key, time, data = row
        return self._bus.publish(
            self._topic,
            value=data.encode(),
            key=key,
            headers=cloud_event(type=type_, source=source, id=id_, time=time),
        )

    async def purge(self, keep_events_s: float) -> int:
        """Delete forwarded events older than ``keep_events_s``; return how many.

        Those of a former ``cluster.name``, which nobody has listed since then, are deleted as well.
        """
        before = self._clock() - keep_events_s

        def delete(connection: Connection, limit: int) -> int:
            return connection.execute(
                "DELETE FROM model_event WHERE seq IN (SELECT seq FROM model_event"
                " WHERE (cluster = %s OR cluster NOT IN"
                " (SELECT cluster FROM cluster_scope WHERE listed_at >= %s))"
                " AND time < %s AND forwarded_at IS NOT NULL ORDER BY seq LIMIT %s)",
                (self._cluster, before, before, limit),
            )

        return await self._until_done(lambda: delete_in_steps(self._store, delete))

    async def _until_done(self, action: Callable[[], Awaitable[T]]) -> T:
        """Run an action on the store; if the store is unavailable, retry until it is back."""
        backoff = Backoff(*RETRY_S)
        while True:
            try:
                result = await action()
            except MonitorError as error:
                self.outage.failed(str(error), cause=error)
                if self._stopping.is_set():
                    raise
                with suppress(TimeoutError):
                    async with asyncio.timeout(backoff.next_delay()):
                        await self._stopping.wait()
            else:
                self.outage.recovered("storing model events again")
                return result
