"""Looks at what is not on the bus: the parts of this daemon, its relay, missing results."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

from monitor.alerts.conditions import Condition, judge_conditions
from monitor.alerts.incident_log import log_changes
from monitor.alerts.incidents import Changes, State
from monitor.alerts.jobs import JobFacts
from monitor.alerts.matching import matches
from monitor.alerts.settings import FeedRule, PartRule, Rule, SilenceRule
from monitor.alerts.tables import load_states, write_changes
from monitor.backoff import Backoff
from monitor.errors import MonitorError
from monitor.files.threads import call_aside
from monitor.log_limits import OutageLog
from monitor.part import Health
from monitor.part import State as PartState
from monitor.store import RETRY_S, Connection, Store
from monitor.yielding import over_turns

__all__ = ["PartsWatch", "SilenceWatch", "Watch"]

logger = logging.getLogger("monitor.alerts")

# Between two looks for missing results.
_LONGEST_S = 15.0
# Between a result and the row that shows it to other instances.
_UNSEEN_S = 6.0
_OF_DAEMON = (PartRule, FeedRule)


class Watch(ABC):
    """Looks now and then; its states in the database have the source ``source``."""

    interval_s = 1.0

    def __init__(
        self,
        store: Store,
        *,
        source: str,
        rules: Callable[[], Sequence[Rule]],
        group_wait: Callable[[], float],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rules = rules
        self._store = store
        self._source = source
        self._group_wait = group_wait
        self.clock = clock
        self.states: dict[tuple[str, str], State] | None = None
        self.outage = OutageLog(logger, outcome="trying again")

    @abstractmethod
    async def look(self) -> Sequence[Condition] | None:
        """Return the conditions that hold, None if that is not known yet.

        Raises MonitorError if it cannot be found out.
        """

    async def run(self) -> None:
        """Look until cancelled."""
        self.states = None
        backoff = Backoff(*RETRY_S)
        while True:
            try:
                await self._turn()
                self.outage.recovered("watching again")
                backoff.reset()
            except MonitorError as error:
                # What was committed, if anything, shows when the states are read again.
                self.states = None
                self.outage.failed(str(error), cause=error)
                await asyncio.sleep(backoff.next_delay())
                continue
            await asyncio.sleep(self.interval_s)

    async def _turn(self) -> None:
        if self.states is None:
            found = await self._store.read(
                functools.partial(load_states, source=self._source, places=(0,))
            )
            self.states = {(rule, subject): state for rule, subject, state in found}
        conditions = await self.look()
        if conditions is None:
            return
        rules = {rule.name for rule in self._rules()}
        changes = judge_conditions(conditions, self.states, rules=rules, now=self.clock())
        if not changes:
            return
        # Since when a condition holds that opened nothing yet is known to this instance alone.
        if changes.opened or changes.resolved:
            await self._commit(changes)
        for key, state in changes.states.items():
            if state is None:
                self.states.pop(key, None)
            else:
                self.states[key] = state

    async def _commit(self, changes: Changes) -> None:
        now = self.clock()
        lasting = {key: s for key, s in changes.states.items() if s is None or s.incident}
        stored = dataclasses.replace(changes, states=lasting)

        def write(connection: Connection) -> dict[str, str]:
            return write_changes(
                connection,
                stored,
                source=self._source,
                places={},
                now=now,
                look_at=now + self._group_wait(),
            )

        adopted = await self._store.transaction(write)
        log_changes(changes)
        if adopted:
            for key, state in changes.states.items():
                if state is not None and state.incident in adopted:
                    changes.states[key] = State(
                        watch=state.watch, since=state.since, incident=adopted[state.incident]
                    )


class PartsWatch(Watch):
    """Watches the parts of this daemon, and its relay's brokers.

    ``here`` is added to subjects where several instances share a database. ``connected`` returns
    whether a broker is connected, None without a relay.
    """

    def __init__(
        self,
        store: Store,
        *,
        rules: Callable[[], Sequence[Rule]],
        parts: Callable[[], Mapping[str, PartState]],
        connected: Callable[[], bool | None],
        here: str,
        group_wait: Callable[[], float],
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(
            store, source=f"daemon{here}", rules=rules, group_wait=group_wait, clock=clock
        )
        self._parts = parts
        self._connected = connected
        self._here = here
        # The rules that it looked at last, and those of them that it watches.
        self._of: Sequence[Rule] = ()
        self._mine: Sequence[Rule] = ()

    async def look(self) -> Sequence[Condition]:
        """Look at the parts and the relay."""
        rules = self._rules()
        if rules is not self._of:
            # There may be thousands, most of them about sites.
            mine = [each async for each in over_turns(rules) if isinstance(each, _OF_DAEMON)]
            self._of, self._mine = rules, mine
        found: list[Condition] = []
        if not self._mine:
            return found
        parts, connected = self._parts(), self._connected()
        degraded = [each for each in parts.items() if each[1].health is Health.DEGRADED]
        async for rule in over_turns(self._mine):
            conditions = []
            if isinstance(rule, PartRule):
                conditions = [
                    self._condition(rule, name, f"{name} is degraded", state.summary, rule.for_)
                    for name, state in degraded
                ]
            elif isinstance(rule, FeedRule) and connected is False:
                title, reason = "no broker is connected", f"for {rule.for_:g} s"
                conditions = [self._condition(rule, "relay", title, reason, rule.for_)]
            found += [
                each
                for each in conditions
                if matches(rule.match, subject=each.subject, watch=each.watch)
            ]
        return found

    def _condition(self, rule: Rule, name: str, title: str, reason: str, for_s: float) -> Condition:
        return Condition(
            rule=rule.name,
            watch=rule.watch,
            subject=f"{name}{self._here}",
            title=f"{title}{f' on {self._here[1:]}' if self._here else ''}",
            reason=reason or title,
            for_s=for_s,
        )


class SilenceWatch(Watch):
    """Watches for jobs without recent results; one instance at a time does.

    ``seen`` has when the last result of jobs was made, as far as this instance read them.
    ``catching_up`` says whether it still reads old ones.
    """

    def __init__(
        self,
        store: Store,
        *,
        rules: Callable[[], Sequence[Rule]],
        jobs: Callable[[], Mapping[int, JobFacts] | None],
        seen: Callable[[], Mapping[int, float]],
        catching_up: Callable[[], bool],
        group_wait: Callable[[], float],
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(store, source="silence", rules=rules, group_wait=group_wait, clock=clock)
        self._jobs = jobs
        self._seen = seen
        self._catching_up = catching_up
        # Since when this instance waits for results of a job.
        self._waiting: dict[int, float] = {}

    async def look(self) -> Sequence[Condition] | None:
        """Look at the last result of each job."""
        rules = [each async for each in over_turns(self._rules()) if isinstance(each, SilenceRule)]
        if not rules:
            # Nobody notes results without such a rule.
            self._waiting.clear()
            self.interval_s = 1.0
            return ()
        # With thousands of jobs it may take long.
        jobs = await call_aside(self._jobs)
        if jobs is None or self._catching_up():
            return None
        if not jobs:
            self.interval_s = 1.0
            return ()
        shortest = min(job.interval for job in jobs.values())
        self.interval_s = min(max(shortest / 4, 1.0), _LONGEST_S)
        now = self.clock()
        stored: dict[int, float] = dict(
            await self._store.read(
                lambda connection: connection.query("SELECT job_id, seen_at FROM alert_seen")
            )
        )
        live = self._seen()
        running = {job_id: job for job_id, job in jobs.items() if job.running}
        self._waiting = {job_id: self._waiting.get(job_id, now) for job_id in running}
        found = []
        pairs = ((*each, rule) for each in running.items() for rule in rules)
        async for job_id, job, rule in over_turns(pairs):
            last = max(stored.get(job_id, 0.0), live.get(job_id, 0.0))
            since = max(last, self._waiting[job_id])
            patience = max(rule.intervals * job.interval, job.interval + job.slowest_s)
            patience += _UNSEEN_S if self._store.dialect == "postgresql" else 1.0
            known = (self.states or {}).get((rule.name, str(job_id)))
            lasts = known is not None and known.incident and last <= (known.since or 0.0)
            if not lasts and (
                now - since < patience
                or not matches(
                    rule.match,
                    subject=str(job_id),
                    watch="silence",
                    job_id=job_id,
                    tags=job.tags,
                )
            ):
                continue
            found.append(
                Condition(
                    rule=rule.name,
                    watch="silence",
                    subject=str(job_id),
                    job_id=job_id,
                    title=f"{job.title}: no results",
                    reason=f"none for {round(now - since)} s, expected each {job.interval:g} s",
                    since=since,
                )
            )
        return found
