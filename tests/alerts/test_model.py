"""The whole part against a model of the rules, in virtual time, whatever goes wrong and when.

The model looks at the log of results alone. It knows nothing of processes, databases, receivers
and clocks, which must make no difference to which incidents there are.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from monitor.alerts.settings import Match
from monitor.alerts.silences import add_silence, delete_silence
from monitor.store.sqlite import SqliteConnection
from tests.alerts.running import result, settings
from tests.alerts.virtual import PARTITIONS, Process, World, moods

JOBS = (1, 2, 3)
NAMES = ("one", "two")
RECEIVERS = {"few": ("hook",), "many": ("hook", "mail")}
LONG_S = 1800.0
# (failures, successes) of each rule; None: the rule is not there.
Rules = dict[str, tuple[int, int] | None]


def expected(results: Sequence[tuple[float, bool, Rules]], name: str) -> list[list[float | None]]:
    """Return when a job's incidents of a rule open and end: by looking back at each result."""
    found: list[list[float | None]] = []
    begun = 0  # what an incident's end or the rule's absence made count no more
    for place, (at, up, rules) in enumerate(results):
        limits = rules[name]
        is_open = bool(found) and found[-1][1] is None
        seen = [good for _, good, _ in results[begun : place + 1]]
        row = next((n for n, good in enumerate(reversed(seen)) if good is not up), len(seen))
        if is_open and up and row >= (1 if limits is None else limits[1]):
            found[-1][1] = at
            begun = place + 1
        elif is_open:
            continue
        elif limits is None:
            begun = place + 1
        elif not up and row >= limits[0]:
            found.append([at, None])
    return found


def config(rules: Rules, *, maintenance: Sequence[int] = ()) -> Any:
    return settings(
        group_wait=0.3,
        flapping=1000,
        receivers=[{"name": name, "webhook": "http://127.0.0.1:9/"} for name in ("hook", "mail")],
        rules=[
            {
                "name": name,
                "watch": "site",
                "failures": limits[0],
                "successes": limits[1],
                "receivers": RECEIVERS[name],
            }
            for name, limits in rules.items()
            if limits is not None
        ],
        maintenance=[{"name": "always", "match": {"jobs": list(maintenance)}}] * bool(maintenance),
    )


limits = st.tuples(st.integers(1, 3), st.integers(1, 3))


class AlertsAgainstModel(RuleBasedStateMachine):
    """Processes come, go and die, clocks jump, receivers fail, hang and lie."""

    def __init__(self) -> None:
        super().__init__()
        self.now_rules: Rules = {"few": (1, 1), "many": (2, 1)}
        self.maintenance: tuple[int, ...] = ()
        self.silences: dict[str, int] = {}
        self.world = World(config(self.now_rules))
        self.world.committed = self.look
        self.history: dict[int, list[tuple[float, bool, Rules]]] = defaultdict(list)
        self.at = self.world.now()
        self.recent: dict[int, list[bytes]] = defaultdict(list)
        self.looked = 0
        self.announced: set[str] = set()
        self.nobodys: set[str] = set()
        self.problems: list[str] = []

    @initialize()
    def first_read(self) -> None:
        # What is published before the part was ever on is not judged.
        self.world.run(self.world.start("one"))
        self.wait(2)
        for job in JOBS:
            self.publish(job, up=True)
        self.settle()

    # What happens

    @rule(
        values=st.lists(
            st.tuples(st.sampled_from(JOBS), st.booleans(), st.sampled_from((0, 0, 0, 1, 3))),
            min_size=1,
            max_size=12,
        )
    )
    def results(self, values: list[tuple[int, bool, int]]) -> None:
        for job, up, repeated in values:
            self.publish(job, up=up)
            # The last ones come again, as after a lost acknowledgement.
            for value in self.recent[job][-repeated:] if repeated else ():
                self.world.publish(job % PARTITIONS, str(job), value)

    @rule(seconds=st.sampled_from((0.05, 0.3, 1.0, 5.0, 40.0)))
    def wait(self, seconds: float) -> None:
        self.world.run(asyncio.sleep(seconds))

    @rule(name=st.sampled_from(NAMES), points=st.integers(0, 12))
    def kill(self, name: str, points: int) -> None:
        process = self.world.processes.get(name)
        if process is not None and not process.dead:
            process.dies_in = points

    @rule(name=st.sampled_from(NAMES))
    def start(self, name: str) -> None:
        self.world.run(self.world.start(name))

    @rule(name=st.sampled_from(NAMES))
    def stop(self, name: str) -> None:
        process = self.world.processes.get(name)
        if process is None or process.dead:
            return

        process.dies_in = None

        async def stop() -> None:
            await process.part.drain()
            process.die()
            await process.gone()

        self.world.run(stop())

    @rule(name=st.sampled_from(NAMES), hours=st.sampled_from((-6, -1, -0.01, 0, 0.01, 1, 6)))
    def step_clock(self, name: str, hours: float) -> None:
        self.world.ahead[name] = hours * 3600

    @rule(receiver=st.sampled_from(("hook", "mail")), mood=st.sampled_from(moods()))
    def receiver(self, receiver: str, mood: str) -> None:
        self.world.receivers[receiver].mood = mood

    @rule(away=st.booleans(), answers_lost=st.integers(0, 2))
    def database(self, away: bool, answers_lost: int) -> None:
        self.world.away, self.world.answers_lost = away, answers_lost

    @rule(few=st.none() | limits, many=limits, maintenance=st.sampled_from(((), (1,), (2, 3))))
    def reload(
        self,
        few: tuple[int, int] | None,
        many: tuple[int, int],
        maintenance: tuple[int, ...],
    ) -> None:
        self.take_up({"few": few, "many": many}, maintenance)

    def take_up(self, rules: Rules, maintenance: tuple[int, ...]) -> None:
        # Which results the old rules judge must not depend on the time that the part takes.
        self.settle()
        self.now_rules, self.maintenance = rules, maintenance
        self.world.settings = config(self.now_rules, maintenance=maintenance)
        for process in self.world.alive():
            process.part._settings = self.world.settings
            process.part._adopted.set()
            process.part._notifier.adopt()

    @rule(job=st.sampled_from(JOBS))
    def silence(self, job: int) -> None:
        # What it keeps back must not depend on the time that the part takes.
        self.settle()
        with self.world.raw:
            found = add_silence(
                SqliteConnection(self.world.raw),
                match=Match(jobs=(job,)),
                until=self.world.now() + 1e6,
                comment="",
                by="me",
                now=self.world.now(),
            )
        self.silences[found.id] = job

    @precondition(lambda self: self.silences)
    @rule()
    def end_silences(self) -> None:
        self.end_all_silences()

    def end_all_silences(self) -> None:
        self.settle()
        for silence in self.silences:
            assert delete_silence(SqliteConnection(self.world.raw), silence, self.world.now())
        self.silences.clear()

    # What must hold

    def publish(self, job: int, *, up: bool) -> None:
        self.at += 1
        value = json.dumps(result(job, self.at, up=up)).encode()
        self.recent[job] = [*self.recent[job][-2:], value]
        self.history[job].append((self.at, up, self.now_rules))
        self.world.publish(job % PARTITIONS, str(job), value)

    def look(self, process: Process) -> None:
        """See that a commit plans no message about what is kept back.

        An incident that is announced while its rule is removed has no receivers.
        """
        for incident, name in self.world.query(
            "SELECT id, rule FROM alert_incident WHERE announced_at IS NOT NULL"
        ):
            if incident not in self.announced and self.now_rules[name] is None:
                self.nobodys.add(incident)
            self.announced.add(incident)
        rows = self.world.query(
            "SELECT d.seq, d.event, i.job_id, i.rule FROM alert_delivery d"
            " JOIN alert_notice n ON n.delivery_id = d.id JOIN alert_incident i"
            " ON i.id = n.incident_id WHERE d.seq > ? AND i.resolved_at IS NULL ORDER BY d.seq",
            self.looked,
        )
        kept = self.kept_back()
        for seq, event, job, name in rows:
            self.looked = max(self.looked, seq)
            if event == "opened" and job in kept:
                self.problems.append(f"{process.name}: {name} of job {job} was sent")

    def heal(self) -> None:
        self.world.away, self.world.answers_lost = False, 0
        for there in self.world.receivers.values():
            there.mood = "accepts"
        if not [each for each in self.world.alive() if each.dies_in is None]:
            for each in self.world.alive():
                each.dies_in = None
            self.world.run(self.world.start("one"))

    def kept_back(self) -> set[int]:
        """Return the jobs of which nothing is sent."""
        return {*self.maintenance, *self.silences.values()}

    def settle(self) -> None:
        """Wait until everything is judged and sent, but for what is kept back."""
        self.heal()

        def done() -> bool:
            offsets = dict(self.world.query("SELECT place, next_offset FROM alert_offset"))
            if any(offsets.get(p) != len(log) for p, log in enumerate(self.world.log)):
                return False
            waiting = self.world.query(
                "SELECT job_id FROM alert_incident WHERE look_at IS NOT NULL AND NOT"
                " (suppressed_by IS NOT NULL AND job_id IN (SELECT value FROM json_each(?)))",
                json.dumps(sorted(self.kept_back())),
            )
            (unsent,) = self.world.query(
                "SELECT count(*) FROM alert_delivery WHERE next_at IS NOT NULL"
            )
            return not waiting and unsent == (0,)

        async def settle() -> None:
            until = self.world.loop.now + LONG_S
            while not done():
                assert self.world.loop.now < until, "it does not settle"
                await asyncio.sleep(0.5)
                for process in self.world.alive():
                    if process.task.done():
                        process.task.result()

        self.world.run(settle())

    def teardown(self) -> None:
        try:
            self.take_up(self.now_rules, ())
            self.end_all_silences()
            self.settle()
            self.judge()
        finally:
            self.world.close()

    def judge(self) -> None:
        assert self.problems == []
        rows = self.world.query(
            "SELECT rule, job_id, opened_at, resolved_at FROM alert_incident ORDER BY seq"
        )
        found: dict[tuple[str, int], list[list[float | None]]] = defaultdict(list)
        for name, job, opened_at, resolved_at in rows:
            found[name, job].append([opened_at, resolved_at])
        for name in RECEIVERS:
            for job in JOBS:
                assert found[name, job] == expected(self.history[job], name), (name, job)
        for receiver in self.world.receivers:
            self.judge_receiver(receiver)

    def judge_receiver(self, receiver: str) -> None:
        there = self.world.receivers[receiver]
        contents: dict[str, set[tuple[str, ...]]] = defaultdict(set)
        ids: dict[tuple[str, str], set[str]] = defaultdict(set)
        order: dict[str, list[str]] = defaultdict(list)
        for got in there.got:
            contents[got.delivery].add((got.event, *got.incidents))
            for incident in got.incidents:
                ids[incident, got.event].add(got.delivery)
                order[incident].append(got.event)
        # A repeated attempt is the same message, and one event is one message.
        assert all(len(each) == 1 for each in contents.values())
        assert all(len(each) == 1 for each in ids.values()), ids
        for delivery, count in Counter(got.delivery for got in there.got).items():
            died = any(got.process.dead for got in there.got if got.delivery == delivery)
            assert count == 1 or died or delivery in there.excused, delivery
        for incident, name, resolved_at, late, suppressed, announced in self.world.query(
            "SELECT id, rule, resolved_at, late, suppressed_by, announced_at FROM alert_incident"
        ):
            if receiver not in RECEIVERS[name]:
                continue
            events = set(order[incident])
            if incident in self.nobodys:
                assert "opened" not in events
                continue
            if announced is None:
                assert resolved_at is not None
                assert suppressed is not None
                assert events == set()
            elif resolved_at is None:
                assert events == {"opened"}
            else:
                # What is over by the time that it could be sent is one message.
                assert events in ({"opened", "resolved"}, {"resolved"}), (late, events)


TestAlertsAgainstModel = AlertsAgainstModel.TestCase
TestAlertsAgainstModel.settings = hypothesis.settings(stateful_step_count=20)
