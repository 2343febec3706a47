"""The logs part: service, commits, retention and transports."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from monitor.errors import MonitorError
from monitor.files.threads import call_aside
from monitor.log_limits import OutageLog, RateLimitedLog
from monitor.logs.followers import Follower
from monitor.logs.instances import Instances
from monitor.logs.jumps import Jumps
from monitor.logs.quota import Quota, Table
from monitor.logs.retention import make_partitions, purge
from monitor.logs.service import LogService
from monitor.logs.session import Session
from monitor.logs.settings import LogsSettings
from monitor.metrics import Metric
from monitor.part import Health, Part, State, counted
from monitor.store import Store
from monitor.tokens import TokenFile, require_tokens
from monitor.transport.curve import keys_after_reload

if TYPE_CHECKING:
    from monitor.logs.zeromq import ZeroMq

__all__ = ["Logs"]

logger = logging.getLogger("monitor.logs")

_DRAIN_S = 3.0


class Logs(Part):
    """Log entries and notifications of devices.

    ``now`` is the clock for validation and purges, in s since the epoch. ``steady`` is a clock that
    is never set, and that runs while the machine sleeps.
    """

    name = "logs"

    def __init__(
        self,
        settings: LogsSettings,
        store: Store,
        *,
        tokens: TokenFile,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        steady: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self._settings = settings
        self._store = store
        self._tokens = tokens
        self._clock = clock
        self._steady = steady
        self._jumps = Jumps()
        self.service = LogService(
            settings.with_environment(os.environ), store, now=now, clock=clock
        )
        self._instances = Instances(self.service, store)
        self._purge_now = asyncio.Event()
        self._retaining = asyncio.Lock()
        self._purging = OutageLog(logger)
        self.purged = 0
        tables: tuple[Table, ...] = ("log_entry", "notification")
        self._quotas = {table: Quota(store, table) for table in tables}
        self._quota_log = RateLimitedLog(logger)
        self.zeromq: ZeroMq | None = None

    def session(self, *, send: Callable[[bytes], None], follower: Follower) -> Session:
        """Return a session for a new connection."""
        return Session(self.service, send=send, follower=follower)

    async def attend(self) -> None:
        """Nothing to do: the part receives all commits while it runs."""

    def descriptors(self) -> int:
        """One descriptor per connection of ZeroMQ."""
        if self._settings.zeromq_uri is None:
            return super().descriptors()
        from monitor.logs.zeromq import MOST_CONNECTIONS

        return super().descriptors() + MOST_CONNECTIONS

    async def check(self) -> None:
        """Read the tokens if there is a ZeroMQ socket: beyond loopback it requires some."""
        address = self._settings.zeromq_uri
        if address is not None:
            await asyncio.to_thread(self._tokens.load)
            require_tokens(address, self._tokens.current, key="zeromq_uri")

    async def start(self) -> None:
        """Bind the ZeroMQ socket, if there is one."""
        address = self._settings.zeromq_uri
        if address is None:
            return
        # Never open it without tokens, even if check() was not called.
        await self.check()
        from monitor.logs.zeromq import ZeroMq

        self.zeromq = ZeroMq(address, self.service, self._tokens)
        await self.zeromq.start()

    async def run(self) -> None:
        """Commit, purge, and listen to other instances, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.service.committer.run(), name="logs:commits")
            tasks.create_task(self._retain(), name="logs:retention")
            tasks.create_task(self._instances.run(), name="logs:instances")
            tasks.create_task(self.service.tail.catch_up(), name="logs:followers")
            tasks.create_task(self.service.tail.search(), name="logs:searches")
            tasks.create_task(self.service.tail.match(), name="logs:expressions")
            if self.zeromq is not None:
                tasks.create_task(self.zeromq.run(), name="logs:zeromq")

    async def drain(self) -> None:
        """Accept no more uploads, commit the queued ones, and send them to followers."""
        committer = self.service.committer
        committer.stopping = True
        async with asyncio.timeout(_DRAIN_S):
            await committer.flush()
            await self.service.tail.settled()
            self.service.tail.flush()
            if self.zeromq is not None:
                await self.zeromq.drain()

    async def close(self) -> None:
        """Close the ZeroMQ socket, and end the processes of the service."""
        if self.zeromq is not None:
            self.zeromq.close()
            self.zeromq = None
        await self.service.close()

    async def _retain(self) -> None:
        while True:
            await self.retain()
            self._purge_now.clear()
            try:
                async with asyncio.timeout(self.service.settings.cleanup_interval):
                    await self._purge_now.wait()
            except TimeoutError:
                pass

    async def retain(self) -> None:
        """Purge once, and create the next partitions."""
        # A purge by an earlier clock must not meet partitions of a later one.
        async with self._retaining:
            settings, now, steady = self.service.settings, self.service.now(), self._steady()
            jumped_s = self._jumps.look(now, steady)
            if jumped_s < 0:
                logger.warning("the clock jumped %.0f s back", -jumped_s)
            elif jumped_s > 0:
                logger.warning(
                    "the clock jumped %.0f s ahead: entries that are too old only because of this"
                    " are hidden, but kept in case it is set back",
                    jumped_s,
                )
            try:
                await make_partitions(self._store, now=now, timewindow=settings.timewindow)
                self.purged += await purge(
                    self._store,
                    now=now,
                    timewindow=settings.timewindow,
                    keep_notifications=settings.keep_notifications,
                    ahead_s=lambda kept_s: self._jumps.ahead_s(kept_s, steady),
                )
                await self._keep_within()
            except MonitorError as error:
                self._purging.failed(f"cannot purge: {error}", cause=error)
            else:
                self._purging.recovered("purging resumed")

    async def _keep_within(self) -> None:
        """Delete the oldest entries beyond the limits in bytes."""
        settings = self.service.settings
        for key, limit, quota in (
            ("max_bytes", settings.max_bytes, self._quotas["log_entry"]),
            (
                "max_notification_bytes",
                settings.max_notification_bytes,
                self._quotas["notification"],
            ),
        ):
            deleted = await quota.enforce(limit)
            if deleted:
                self._quota_log.warning(
                    key, "over logs.%s (%d bytes): deleted the oldest %d", key, limit, deleted
                )

    def state(self) -> State:
        """Return counts; degraded while storing or purging fails."""
        for outage in (self.service.committer.outage, self._purging):
            if outage.problem is not None:
                return State(Health.DEGRADED, outage.summary)
        stored, followers = self.service.committer.stored, len(self.service.tail)
        return State(
            Health.OK,
            f"{counted(stored, 'entry', 'entries')} stored since the start,"
            f" {counted(followers, 'follower')}",
        )

    def metrics(self) -> Iterable[Metric]:
        """Return the metrics log_*."""
        yield Metric(
            "log_entries_total",
            "counter",
            "Log entries and notifications stored",
            [({}, self.service.committer.stored)],
        )
        yield Metric(
            "log_rejected_total",
            "counter",
            "Entries rejected and requests refused",
            [({"reason": reason}, count) for reason, count in self.service.rejected.items()],
        )
        yield Metric(
            "log_purged_total",
            "counter",
            "Log entries deleted; for whole partitions, as estimated by the database",
            [({}, self.purged)],
        )
        yield Metric(
            "log_evicted_total",
            "counter",
            "Log entries and notifications deleted because of logs.max_bytes and"
            " logs.max_notification_bytes",
            [({"kind": table}, quota.deleted) for table, quota in self._quotas.items()],
        )
        yield Metric("log_followers", "gauge", "Live tails", [({}, len(self.service.tail))])

    async def prepare(self, settings: LogsSettings) -> Callable[[], None]:
        """Adopt limits, keep times and tokens."""
        adopted = self._settings.adopting(settings)
        effective = adopted.with_environment(os.environ)
        # If api.tokens_file changes, the socket will use the new tokens.
        fresh = self._tokens.next or self._tokens
        tokens = await asyncio.to_thread(fresh.read, after=self._tokens.current)
        if self.zeromq is not None and self._settings.zeromq_uri is not None:
            require_tokens(self._settings.zeromq_uri, tokens, key="zeromq_uri")
        if settings.zeromq_uri is not None:
            # It applies after a restart, which should not be the first to reject it.
            require_tokens(settings.zeromq_uri, tokens, key="zeromq_uri")
        keys = await call_aside(keys_after_reload, adopted.curve, settings.curve)

        def switch() -> None:
            self._settings = adopted
            kept_s = self.service.settings.timewindow
            if effective.timewindow < kept_s:
                logger.warning(
                    "timewindow is now %g s (was %g s): older log entries are hidden and will be"
                    " deleted",
                    effective.timewindow,
                    kept_s,
                )
            self.service.adopt(effective)
            self._tokens.file, self._tokens.current = fresh.file, tokens
            if self.zeromq is not None and keys is not None:
                self.zeromq.adopt_keys(keys)
            self._purge_now.set()

        return switch
