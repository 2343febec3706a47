"""Each judgement sees what it is there to see, and lets pass what is right."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from math import inf
from pathlib import Path

import pytest

from tests.aggregation.plain import Tables, plain_tables, record, result
from tests.chaos.alert_load import Sent, Took, alerts_finding, openings
from tests.chaos.clock import Clock, build_clock
from tests.chaos.findings import Finding
from tests.chaos.invariants import (
    forwarded_finding,
    output_finding,
    resources_finding,
    tables_finding,
)
from tests.chaos.log_load import upload_finding
from tests.chaos.probe_load import Served, owed, results_finding
from tests.chaos.relay_load import prefix_problem
from tests.chaos.service import Resources
from tests.relay.readers import Old

FINISHED = 1 << 30


def test_each_incident_of_the_results_is_sent_and_each_event_arrives_as_one_message() -> None:
    runs = [(301, 1.0, True), (301, 2.0, False), (301, 2.0, False), (301, 3.0, False)]
    runs += [(301, 4.0, True), (301, 5.0, False), (999, 5.0, False)]
    due = openings(
        {"job_id": job, "scheduled_at": at, "checked_at": at, "up": up} for job, at, up in runs
    )
    assert due == {301: {2.0, 5.0}}
    sent = [
        Sent(str(at), 301, at, "a", event) for at in (2.0, 5.0) for event in ("opened", "resolved")
    ]
    took = [
        Took("d1", "opened", ("2.0", "5.0"), accepted=False),
        Took("d1", "opened", ("2.0", "5.0"), accepted=True),
        Took("d2", "resolved", ("2.0", "5.0"), accepted=True),
    ]

    def judge(
        due: dict[int, set[float]], sent: list[Sent], took: list[Took], *, ends: int = 0
    ) -> Finding:
        return alerts_finding(due, sent, {"a": took}, most_again={"a": ends})

    again = [*took, took[1]]
    assert judge(due, sent, took).holds
    assert judge(due, sent, again, ends=1).holds
    for wrong in (
        judge({301: {2.0}}, sent, took),
        judge({301: {2.0, 5.0, 6.0}}, sent, took),
        judge(due, sent, took[:2]),
        judge(due, sent[:-1], took),
        judge(due, sent, again),
        judge(due, sent, [*took, took[1]._replace(delivery="d3")]),
        judge(due, [*sent, Sent("7", 301, 5.0, None, None)], took),
    ):
        assert not wrong.holds


def uploads(stored: Counter[str]) -> Finding:
    return upload_finding(
        "logs", sent={"a", "b", "c", "d"}, acknowledged={"a", "b"}, refused={"d"},
        stored=stored, counts="",
    )  # fmt: skip


def test_an_acknowledged_upload_is_stored_once_and_what_was_not_answered_may_be() -> None:
    assert uploads(Counter({"a": 1, "b": 1})).holds
    assert uploads(Counter({"a": 1, "b": 1, "c": 1})).holds


@pytest.mark.parametrize(
    ("stored", "problem"),
    [
        ({"a": 1}, "acknowledged, not stored: b"),
        ({"a": 2, "b": 1}, "stored 2 times: a"),
        ({"a": 1, "b": 1, "c": 2}, "stored 2 times: c"),
        ({"a": 1, "b": 1, "d": 1}, "refused, but stored: d"),
        ({"a": 1, "b": 1, "e": 1}, "stored, but never sent: e"),
    ],
)
def test_a_lost_or_repeated_upload_is_found(stored: dict[str, int], problem: str) -> None:
    assert uploads(Counter(stored)).problems == (problem,)


def test_a_check_is_owed_if_what_was_published_after_it_is_on_the_disk() -> None:
    requests = [Served(0, at) for at in (1.0, 2.0, 3.0)] + [Served(1, 4.0), Served(1, 5.0)]
    assert owed(requests, {0: 2.0, 1: inf}) == [4, 3, 0]
    assert owed(requests, {0: 0.0, 1: 4.0}) == []
    # The last request of a process that was killed comes to a slow site after the next one's.
    late = [Served(0, 1.0), Served(1, 2.0), Served(0, 3.0), Served(1, 4.0)]
    assert owed(late, {0: 3.0, 1: inf}) == [3, 1, 0]


def test_a_lost_or_repeated_check_is_found_however_slow_the_machine_is() -> None:
    # In its second life, the daemon gets the first 50 of the 200 statuses again.
    served = {1: [Served(int(at >= 200), at) for at in map(float, range(250))]}
    whole = Counter((number // 200, 400 + number % 200) for number in range(250))

    def problems(*, without: Iterable[tuple[int, int]] = (), end: float = 200.0) -> tuple[str, ...]:
        return results_finding(served, {1: whole - Counter(without)}, ends=[end]).problems

    assert not problems()
    assert problems(without=[(0, 449)]) == ("job 1: 1 of status 449 lost in life 0",)
    assert problems(without=[(1, 449)]) == ("job 1: 1 of status 449 lost in life 1",)
    twice = {1: whole + Counter([(1, 450)])}
    assert results_finding(served, twice, ends=[200.0]).problems == (
        "job 1: 1 of status 450 too many in life 1",
    )
    # A kill may take as much from the end of a life as the machine was slow to store.
    tail = [(0, 400 + number) for number in range(150, 200)]
    assert not problems(without=tail)
    assert len(problems(without=tail, end=1000.0)) == 49


def test_a_metric_that_counts_once_too_often_is_found() -> None:
    expected = plain_tables([record(0, result(1, 60.0)), record(1, result(1, 61.0))])
    assert tables_finding(expected, expected, offsets=True).holds
    more = plain_tables([record(n, result(1, 60.0 + n)) for n in range(3)])
    wrong = Tables(expected.results, more.metrics, expected.rejected, expected.offsets)
    problems = tables_finding(wrong, expected, offsets=True).problems
    assert len(problems) == 3
    assert problems[0].startswith("metrics: (1, 0, 'day', '') is (3, 0,")
    assert not tables_finding(more, expected, offsets=True).holds


def test_model_events_may_come_again_but_none_may_lack_in_the_bus() -> None:
    assert forwarded_finding(["a", "b"], ["a", "b", "a", "b"]).holds
    assert not forwarded_finding(["a", "b"], ["a"]).holds
    assert not forwarded_finding(["a"], ["a", "b"]).holds


@pytest.mark.parametrize(
    ("connections", "history", "fine"),
    [
        ([[0, 1, 2], [0, 1, 2, 3]], [0, 1, 2, 3], True),
        # A crash took 2 and 3; the channel continued with 5.
        ([[0, 1, 2, 3], [0, 1, 5]], [0, 1, 5], True),
        # So it did, and FINISHED was repeated.
        ([[0, 1, 2, FINISHED], [0, 1, FINISHED]], [0, 1, FINISHED], True),
        ([[0, FINISHED, 1]], [0, 1, FINISHED], False),
        ([[0, FINISHED, FINISHED]], [0, FINISHED], False),
        ([[0, 2]], [0, 1, 2], False),
        ([[1, 2]], [0, 1, 2], False),
        ([[0, 1, 1]], [0, 1], False),
        ([[0, 2, 1]], [0, 1, 2], False),
        ([[0, 3, 1]], [0, 1], False),
    ],
)
def test_an_old_reader_gets_prefixes(
    connections: list[list[int]], history: list[int], fine: bool
) -> None:
    reader = Old("c", connections=connections, finished=connections[-1])
    assert (prefix_problem(reader, history) is None) is fine


def test_tracebacks_and_secrets_in_the_output_are_found() -> None:
    secrets = ["site-0123"]
    assert output_finding([("log", "[INFO] all is well\n")], secrets).holds
    traceback = "x\nTraceback (most recent call last):\n  File"
    assert not output_finding([("log", traceback)], secrets).holds
    assert not output_finding([("log", "--- Logging error ---\n")], secrets).holds
    (problem,) = output_finding([("log", "GET /?token=site-0123")], secrets).problems
    assert problem == "log: shows the secret site"


def test_what_a_process_keeps_is_found() -> None:
    before = Resources(50_000_000, 20, 10)

    def judge(resident: int, descriptors: int, threads: int) -> int:
        after = Resources(resident, descriptors, threads)
        return len(
            resources_finding(
                "one", before, after, growth_bytes=10_000_000, descriptors=5, threads=2
            ).problems
        )

    assert judge(59_000_000, 25, 12) == 0
    assert judge(61_000_000, 26, 13) == 3


@pytest.mark.integration_test
def test_a_process_takes_the_time_that_its_clock_is_set_to(
    program: Callable[..., str], tmp_path: Path
) -> None:
    clock = Clock(build_clock(program("cc", "gcc", package="gcc"), tmp_path), tmp_path / "clock")
    clock.set(-7200.0)
    code = "import time; a = time.monotonic(); time.sleep(0.01); print(time.time(), a)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=dict(clock.environ), capture_output=True, text=True, check=True,
    )  # fmt: skip
    told, monotonic = map(float, done.stdout.split())
    assert abs(told - (time.time() - 7200)) < 60
    assert abs(monotonic - time.monotonic()) < 60
    assert abs(clock.now() - told) < 60
