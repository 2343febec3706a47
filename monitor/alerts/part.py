"""The part ``alerts``: judges what others publish, and sends incidents to receivers.

There are two halves. Judges write incidents: one for each topic, on every instance that has
partitions of it, and one for what is not on the bus. The notifier reads incidents whose time has
come, writes messages into the outbox, and sends them; one instance at a time does.
"""

# ruff: noqa: D102 - Part documents the methods

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

from monitor.alerts.incidents import Incident, new_id
from monitor.alerts.jobs import Jobs
from monitor.alerts.judges import Results, Rollouts
from monitor.alerts.log_watch import LogWatch
from monitor.alerts.notifier import Notifier
from monitor.alerts.reader import Judge, TopicReader
from monitor.alerts.receivers import Message, Outcome, Target, targets_of
from monitor.alerts.settings import (
    AlertsSettings,
    CertificateRule,
    Maintenance,
    RolloutRule,
    Rule,
    SilenceRule,
    SiteRule,
)
from monitor.alerts.statistics import Statistics
from monitor.alerts.watching import PartsWatch, SilenceWatch
from monitor.bus import Bus
from monitor.errors import SettingError
from monitor.files.threads import call_aside
from monitor.libraries import needed_by
from monitor.metrics import Metric
from monitor.part import Health, Part, State
from monitor.store import Store
from monitor.yielding import lower_priority

__all__ = ["Alerts"]

logger = logging.getLogger("monitor.alerts")

_DRAIN_S = 3.0
_OF_RESULTS = (SiteRule, CertificateRule, SilenceRule)


class Alerts(Part):
    """Opens incidents by rules, and sends them.

    ``parts`` returns the states of this daemon's parts, ``connected`` whether its relay has a
    broker (None without a relay). ``clock`` gives s since the epoch; ``me`` names this instance
    for the lease.
    """

    name: ClassVar[str] = "alerts"

    def __init__(
        self,
        settings: AlertsSettings,
        *,
        bus: Bus,
        store: Store,
        jobs: Jobs,
        parts: Callable[[], Mapping[str, State]] = dict,
        connected: Callable[[], bool | None] = lambda: None,
        clock: Callable[[], float] = time.time,
        me: str | None = None,
    ) -> None:
        self._settings = settings
        self._bus = bus
        self._store = store
        self._jobs = jobs
        self._clock = clock
        self._targets: Sequence[Target] = ()
        self.statistics = Statistics()
        self._thread = _thread()
        self._results = Results(self._rules, jobs.all, clock=clock)
        self._readers: dict[str, TopicReader] = {}
        self._adopted = asyncio.Event()
        self._draining = False
        self._notifier = Notifier(
            store,
            self.statistics,
            settings=lambda: self._settings,
            targets=lambda: self._targets,
            jobs=jobs.all,
            catching_up=self._catching_up,
            busy=self._busy,
            leading=self._lead,
            me=me,
            clock=clock,
        )
        self._parts_watch = PartsWatch(
            store,
            rules=self._rules,
            parts=parts,
            connected=connected,
            here="" if store.dialect == "sqlite" else f"@{socket.gethostname()}",
            group_wait=self._group_wait,
            clock=clock,
        )

    async def check(self) -> None:
        """Look at every receiver; only this finds URLs that Apprise does not understand."""
        await call_aside(_verified_targets, self._settings)

    async def start(self) -> None:
        self._thread = _thread()
        self._targets = await call_aside(_verified_targets, self._settings)

    async def run(self) -> None:
        """Judge and send until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._jobs.run(), name="alerts:jobs")
            tasks.create_task(self._read(tasks), name="alerts:topics")
            tasks.create_task(self._parts_watch.run(), name="alerts:daemon")
            tasks.create_task(self._notifier.run(), name="alerts:notifier")

    async def drain(self) -> None:
        """Finish the attempts that are under way, and leave the groups."""
        self._draining = True
        for reader in self._readers.values():
            reader.stopping.set()
        await asyncio.gather(
            self._notifier.drain(_DRAIN_S),
            *(reader.ended.wait() for reader in self._readers.values()),
        )

    async def close(self) -> None:
        self._thread.shutdown(wait=False)

    def state(self) -> State:
        """Return the numbers; degraded while the database fails or a receiver accepts nothing."""
        if self._draining:
            return State(Health.STOPPING)
        outages = [self._notifier.outage, *(each.outage for each in self._readers.values())]
        for outage in outages:
            if outage.problem is not None:
                return State(Health.DEGRADED, outage.summary)
        count = sum(self.statistics.open.values())
        summary = f"{count} open incident{'' if count == 1 else 's'}"
        problems = [*self._notifier.problems(), *filter(None, [self._results.too_few])]
        if problems:
            return State(Health.DEGRADED, f"{summary}; {problems[0]}")
        return State(Health.OK, summary)

    def metrics(self) -> Iterable[Metric]:
        return self.statistics.metrics()

    async def prepare(self, settings: AlertsSettings) -> Callable[[], None]:
        """Adopt rules, receivers and windows; their files are read again."""
        adopted = self._settings.adopting(settings)
        targets = await call_aside(_verified_targets, adopted)

        def switch() -> None:
            self._settings, self._targets = adopted, targets
            self._adopted.set()
            self._notifier.adopt()

        return switch

    async def test(self, receiver: str) -> list[Outcome]:
        """Send a test to each target of a receiver and return what they said; raises KeyError."""
        targets = [target for target in self._targets if target.receiver == receiver]
        if not targets:
            raise KeyError(receiver)
        now = self._clock()
        message_of = [
            Message(
                event="test",
                delivery=new_id(),
                incidents=[_test_incident(now)],
                page=self._settings.page,
                now=now,
            )
            for _ in targets
        ]
        return list(
            await asyncio.gather(
                *(target.send(message) for target, message in zip(targets, message_of, strict=True))
            )
        )

    @property
    def maintenance(self) -> Sequence[Maintenance]:
        """The windows in which incidents are not sent."""
        return self._settings.maintenance

    @property
    def watches_sites(self) -> bool:
        """Whether a rule opens incidents of sites that are down."""
        return any(isinstance(rule, SiteRule) for rule in self._settings.rules)

    def receivers(self) -> list[str]:
        """Return the names of all receivers."""
        return [receiver.name for receiver in self._settings.receivers]

    # Inside

    def _rules(self) -> Sequence[Rule]:
        return self._settings.rules

    def _group_wait(self) -> float:
        return self._settings.group_wait

    def _catching_up(self) -> bool:
        return any(reader.catching_up for reader in self._readers.values())

    def _busy(self) -> bool:
        return any(reader.busy for reader in self._readers.values())

    async def _read(self, tasks: asyncio.TaskGroup) -> None:
        """Read the topics that rules need, from the first rule that needs one on."""
        self._readers.clear()
        while True:
            self._adopted.clear()
            settings = self._settings
            if any(isinstance(rule, _OF_RESULTS) for rule in settings.rules):
                self._start(tasks, settings.topic, settings.group, self._results)
            if any(isinstance(rule, RolloutRule) for rule in settings.rules):
                self._start(
                    tasks, settings.model_topic, f"{settings.group}-rollouts", Rollouts(self._rules)
                )
            await self._adopted.wait()

    def _start(self, tasks: asyncio.TaskGroup, topic: str, group: str, judge: Judge) -> None:
        if topic in self._readers or self._draining:
            return
        reader = self._readers[topic] = TopicReader(
            judge,
            bus=self._bus,
            store=self._store,
            topic=topic,
            group=group,
            thread=self._thread,
            group_wait=self._group_wait,
            clock=self._clock,
        )
        tasks.create_task(reader.run(), name=f"alerts:{topic}")

    def _lead(self, tasks: asyncio.TaskGroup) -> None:
        """Start what one instance at a time does in addition to sending."""
        silence = SilenceWatch(
            self._store,
            rules=self._rules,
            jobs=self._jobs.all,
            seen=lambda: dict(self._results.seen),
            catching_up=self._catching_up,
            group_wait=self._group_wait,
            clock=self._clock,
        )
        logs = LogWatch(
            self._store, rules=self._rules, group_wait=self._group_wait, clock=self._clock
        )
        tasks.create_task(silence.run(), name="alerts:silence")
        tasks.create_task(logs.run(), name="alerts:logs")


def _thread() -> ThreadPoolExecutor:
    """Return what decodes and judges messages, so that the loop stays free."""
    return ThreadPoolExecutor(1, "alerts", initializer=lower_priority)


def _verified_targets(settings: AlertsSettings) -> list[Target]:
    """Return all targets; raise SettingError for a URL that Apprise does not understand."""
    targets: list[Target] = []
    for number, receiver in enumerate(settings.receivers):
        try:
            if receiver.urls_file is not None:
                from monitor.alerts.receivers.apprise_url import problem_of

                for place, url in enumerate(receiver.urls(), 1):
                    with needed_by("alerts"):
                        problem = problem_of(url)
                    if problem is not None:
                        raise SettingError(
                            ("urls_file",), f"{receiver.urls_file}: URL {place} is {problem}"
                        )
            targets += targets_of(receiver)
        except SettingError as error:
            raise error.under("receivers", number) from None
    return targets


def _test_incident(now: float) -> Incident:
    return Incident(
        id=new_id(),
        rule="test",
        watch="test",
        subject="test",
        title="a test of this receiver",
        reason="somebody asked for a test; nothing is wrong",
        opened_at=now,
    )
