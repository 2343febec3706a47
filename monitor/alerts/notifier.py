"""Looks at incidents whose time has come, and sends messages; one instance at a time does."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from monitor.alerts import outbox
from monitor.alerts.jobs import JobFacts
from monitor.alerts.lease import LEASE_S, acquire, holder, release
from monitor.alerts.planning import Brake, Plan, Planner, Waiting, furthest_looks
from monitor.alerts.receivers import Outcome, Target
from monitor.alerts.sender import Sender
from monitor.alerts.settings import AlertsSettings
from monitor.alerts.silences import list_silences, look_again
from monitor.alerts.statistics import Statistics
from monitor.alerts.suppression import Surroundings
from monitor.alerts.tables import CHANNEL, hold_incidents
from monitor.backoff import Backoff
from monitor.errors import MonitorError
from monitor.log_limits import OutageLog
from monitor.store import RETRY_S, Connection, Store
from monitor.store.purge import delete_in_steps

__all__ = ["Notifier"]

logger = logging.getLogger("monitor.alerts")

_LEASE = "notifier"
_RENEW_S = 5.0
_ACQUIRE_S = 2.0
# Without a notification of a commit, incidents are looked for this often.
_LOOK_S = 1.0
_PURGE_S = 3600.0
_COUNT_S = 5.0
# While more messages of the same outage wait to be read, incidents wait for them, up to this long
# in addition to group_wait.
_BUSY_LOOK_S = 0.2
_BUSY_PATIENCE_S = 30.0


class _Found(NamedTuple):
    plan: Plan
    messages: int


class _LostError(Exception):
    """Another instance has the lease, or may have it soon."""


class Notifier:
    """The notifier of this instance; ``clock`` gives s since the epoch.

    ``catching_up`` says whether this instance still reads old messages, and ``busy`` whether many
    messages wait to be read. ``leading`` is what the
    instance does in addition while it has the lease.
    """

    def __init__(
        self,
        store: Store,
        statistics: Statistics,
        *,
        settings: Callable[[], AlertsSettings],
        targets: Callable[[], Sequence[Target]],
        jobs: Callable[[], Mapping[int, JobFacts] | None],
        catching_up: Callable[[], bool],
        busy: Callable[[], bool],
        leading: Callable[[asyncio.TaskGroup], None],
        me: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._statistics = statistics
        self._settings = settings
        self._targets = targets
        self._jobs = jobs
        self._catching_up = catching_up
        self._busy = busy
        self._leading = leading
        self._me = me or holder()
        self._clock = clock
        self._brake = Brake()
        self._news = asyncio.Event()
        self._adopted = asyncio.Event()
        self._stopping = asyncio.Event()
        self._senders: dict[tuple[str, str], tuple[Sender, asyncio.Task[None]]] = {}
        # By message: accepted while the database was unavailable.
        self._unnoted: dict[str, Outcome] = {}
        self._busy_since: float | None = None
        self._started_at = clock()
        self.outage = OutageLog(logger, outcome="trying again", level=logging.ERROR)
        self.leads = False
        # Whether the log says that this instance sends. An outage of the database has its own line.
        self._said = False

    def problems(self) -> list[str]:
        """Return what keeps receivers from getting their messages."""
        return [
            f"receiver {sender.target.receiver} {sender.problem}"
            for sender, _ in self._senders.values()
            if sender.problem is not None
        ]

    def adopt(self) -> None:
        """Use new settings and targets."""
        self._adopted.set()
        self._news.set()

    async def run(self) -> None:
        """Wait for the lease and lead, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(self._listen(), name="alerts:listen")
            while not self._stopping.is_set():
                if await self._acquire():
                    await self._lead()
                else:
                    self._follow()
                    await self._pause(_ACQUIRE_S)
            listening.cancel()

    async def drain(self, limit_s: float) -> None:
        """Finish the attempts that are under way, within a time, and end the lease."""
        self._stopping.set()
        self._news.set()
        running = []
        for sender, task in self._senders.values():
            sender.stopping = True
            sender.news.set()
            running.append(task)
        if running:
            await asyncio.wait(running, timeout=limit_s)
        if self.leads:
            with contextlib.suppress(MonitorError):
                await self._store.transaction(
                    functools.partial(release, name=_LEASE, me=self._me), timeout=0.5
                )

    # The lease

    async def _acquire(self) -> bool:
        try:
            found = await self._store.transaction(
                functools.partial(acquire, name=_LEASE, me=self._me), timeout=_RENEW_S
            )
        except MonitorError as error:
            self.outage.failed(str(error), cause=error)
            return False
        self.outage.recovered("the database is available again")
        return found

    async def _renew(self) -> None:
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(_RENEW_S)
            if await self._acquire():
                renewed = time.monotonic()
            elif self.outage.problem is None or time.monotonic() - renewed > LEASE_S * 0.6:
                raise _LostError

    async def _lead(self) -> None:
        self.leads = True
        if not self._said:
            self._said = True
            logger.info("sending the messages of this group of instances")
        try:
            async with asyncio.TaskGroup() as tasks:
                renew = tasks.create_task(self._renew(), name="alerts:lease")
                tasks.create_task(self._plan(tasks), name="alerts:plan")
                tasks.create_task(self._purge(), name="alerts:purge")
                self._leading(tasks)
                await self._stopping.wait()
                renew.cancel()
                await asyncio.Event().wait()  # drained: wait for the daemon to cancel this task
        except* _LostError:
            self._follow()
        finally:
            self.leads = False
            self._senders.clear()

    def _follow(self) -> None:
        """Say that another instance has the lease, if it is known to."""
        if self._said and self.outage.problem is None:
            self._said = False
            logger.warning("another instance sends the messages now")

    async def _listen(self) -> None:
        async with contextlib.aclosing(self._store.listen(CHANNEL)) as payloads:
            async for _ in payloads:
                self._news.set()

    async def _pause(self, limit_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._stopping.wait()

    # Planning

    async def _plan(self, tasks: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        backoff = Backoff(*RETRY_S)
        count_at = 0.0
        self._adopted.set()
        while True:
            self._news.clear()
            try:
                if self._adopted.is_set():
                    self._adopted.clear()
                    await self._adopt_targets(tasks)
                next_at = await self._turn()
                if loop.time() >= count_at:
                    count_at = loop.time() + _COUNT_S
                    self._statistics.open = await self._store.read(outbox.open_counts)
                self.outage.recovered("the database is available again")
                backoff.reset()
            except MonitorError as error:
                self.outage.failed(str(error), cause=error)
                await asyncio.sleep(backoff.next_delay())
                continue
            pause = _LOOK_S if next_at is None else min(max(next_at - self._clock(), 0), _LOOK_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._news.wait()

    async def _turn(self) -> float | None:
        """Send what is due; return when something is due next, if that is known."""
        now = self._clock()
        settings = self._settings()
        looks = furthest_looks(settings)
        due, next_at = await self._store.read(
            functools.partial(outbox.next_look, now=now, looks=looks)
        )
        if not due:
            return next_at
        if self._awaits_more(settings.group_wait):
            return now + _BUSY_LOOK_S
        targets: dict[str, list[str]] = {}
        for target in self._targets():
            targets.setdefault(target.receiver, []).append(target.key)
        found = await self._store.transaction(
            functools.partial(self._plan_and_note, settings=settings, targets=targets, now=now)
        )
        self._brake.sent(found.plan, now=now, group_wait=settings.group_wait)
        if found.messages:
            for sender, _ in self._senders.values():
                sender.news.set()
        return now

    def _awaits_more(self, group_wait: float) -> bool:
        """Return whether more of what is due is about to be read, for a limited time."""
        now = time.monotonic()
        if not self._busy():
            self._busy_since = None
        elif self._busy_since is None:
            self._busy_since = now
        return (
            self._busy_since is not None and now - self._busy_since < group_wait + _BUSY_PATIENCE_S
        )

    def _plan_and_note(
        self,
        connection: Connection,
        settings: AlertsSettings,
        targets: Mapping[str, Sequence[str]],
        now: float,
    ) -> _Found:
        """Plan, in a thread of the store, and note it in the same transaction."""
        hold_incidents(connection, alone=True)
        surroundings = Surroundings(
            now=now,
            jobs=self._jobs() or {},
            maintenance=settings.maintenance,
            silences=list_silences(connection, now),
            dependencies=outbox.dependencies(connection),
            flapping=outbox.flapping(
                connection, now=now, within=settings.flapping_within, most=settings.flapping
            ),
            flapping_within=settings.flapping_within,
            group_wait=settings.group_wait,
        )
        planner = Planner(
            surroundings=surroundings,
            rules={rule.name: rule for rule in settings.rules},
            brake=self._brake,
            catching_up=self._catching_up(),
            started_at=self._started_at,
        )

        made = Plan()

        def decide(pieces: Iterable[Sequence[Waiting]]) -> None:
            for waiting in pieces:
                ended = [each.id for each in waiting if each.resolved_at is not None]
                planner.told = outbox.told(connection, ended)
                planner.plan(waiting, made)

        looks = furthest_looks(settings)
        decide(outbox.due(connection, now, looks))
        opened, ended = "opened" in made.events, "resolved" in made.events
        if opened or ended:
            decide(outbox.companions(connection, now, looks, opened=opened, ended=ended))
        return _Found(made, outbox.carry_out(connection, made, targets, now))

    async def _adopt_targets(self, tasks: asyncio.TaskGroup) -> None:
        """Have a sender for each target, and none for others."""
        targets = {(target.receiver, target.key): target for target in self._targets()}
        for key in self._senders.keys() - targets.keys():
            _, task = self._senders.pop(key)
            task.cancel()
        for key, target in targets.items():
            known = self._senders.get(key)
            if known is not None:
                # The same place; its file may have another secret.
                known[0].target = target
                continue
            sender = Sender(
                target,
                self._store,
                self._statistics,
                page=lambda: self._settings().page,
                unnoted=self._unnoted,
                clock=self._clock,
            )
            task = tasks.create_task(sender.run(), name=f"alerts:send:{target.receiver}")
            self._senders[key] = sender, task
        lost = await self._store.transaction(
            functools.partial(outbox.adopt_targets, known=list(targets))
        )
        for receiver, count in lost:
            logger.warning(
                "receiver %s, or a URL of it, was removed from the config: dropped %d message%s",
                receiver,
                count,
                "" if count == 1 else "s",
            )
        now = self._clock()
        await self._store.transaction(lambda connection: look_again(connection, now))

    async def _purge(self) -> None:
        outage = OutageLog(logger)
        while True:
            before = self._clock() - self._settings().keep_incidents
            try:
                await delete_in_steps(
                    self._store,
                    lambda connection, limit, before=before: outbox.purge(  # type: ignore[misc]
                        connection, before, limit
                    ),
                )
                outage.recovered("purging resumed")
            except MonitorError as error:
                outage.failed(f"cannot purge: {error}", cause=error)
            await asyncio.sleep(_PURGE_S)
