"""Jobs that depend on others, and up results that are degraded."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.errors import SettingError
from monitor.messages import Phases, Result
from monitor.probes.check import Outcome
from monitor.probes.checking import check_job, result_of
from monitor.probes.checks import read_job
from monitor.probes.dependencies import CIRCULAR, Dependents, circular_jobs, failed_dependency
from monitor.probes.job import Job
from monitor.probes.jobs_file import read_jobs
from monitor.probes.schedule import Run
from monitor.probes.settings import ProbesSettings
from monitor.probes.source import JobList
from monitor.web.jobs.registry import JobRegistry
from monitor.web.live.changes import Changes
from monitor.web.live.job_updates import JobFeed
from tests.waiting import until


def job(job_id: int, *depends_on: int, **keys: Any) -> Job:
    return read_job({"id": job_id, "url": "http://x/", "depends_on": list(depends_on), **keys})


@given(st.lists(st.sets(st.integers(1, 8)), min_size=8, max_size=8))
def test_circles_are_found_and_without_them_every_chain_ends(on: list[set[int]]) -> None:
    jobs = {number: job(number, *(each - {number})) for number, each in enumerate(on, 1)}
    circular = circular_jobs(jobs.values())
    for number in jobs:
        if number in Dependents(jobs.values()).of([number]):
            assert number in circular
    rest = [each for number, each in jobs.items() if number not in circular]
    assert all(each.id not in Dependents(rest).of([each.id]) for each in rest)
    if all(number not in Dependents(jobs.values()).of([number]) for number in jobs):
        assert circular == set()


def test_the_job_that_is_down_is_named_also_behind_others() -> None:
    jobs = {each.id: each for each in (job(1), job(2, 1), job(3, 9, 2))}
    assert failed_dependency(jobs[3], jobs, {1}.__contains__) == 1
    assert failed_dependency(jobs[3], jobs, {1, 2}.__contains__) == 2
    assert failed_dependency(jobs[3], jobs, {3}.__contains__) is None


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        ([{"id": 1, "depends_on": [1]}], "jobs[0].depends_on: the job cannot depend on itself"),
        ([{"id": 1, "depends_on": [2]}], "jobs[0].depends_on: there is no job 2"),
        (
            [{"id": 1}, {"id": 2, "depends_on": [3]}, {"id": 3, "depends_on": [2, 1]}],
            f"jobs[1].depends_on: {CIRCULAR}",
        ),
    ],
)
def test_a_dependency_that_makes_no_sense_is_refused(jobs: list[dict[str, Any]], said: str) -> None:
    data = {"jobs": [{"kind": "http", "url": "http://x/", **each} for each in jobs]}
    with pytest.raises(SettingError) as caught:
        msgspec.convert(data, ProbesSettings).verify()
    assert str(caught.value) == said


def test_a_jobs_file_loses_only_the_circle(tmp_path: Path) -> None:
    file = tmp_path / "jobs.json"
    jobs = [
        {"id": 1, "depends_on": [2]},
        {"id": 2, "depends_on": [1]},
        {"id": 3, "depends_on": [1]},
    ]
    file.write_text(json.dumps([{"url": "http://x/", **each} for each in jobs]))
    found = read_jobs(file)
    assert [each.id for each in found.jobs] == [3]
    assert [line.removeprefix(f"{file}: ") for line in found.refused] == [
        f"job {number}: depends_on: {CIRCULAR}" for number in (1, 2)
    ]


class Known:
    """Where a registry's jobs come from."""

    source = "config"
    runner = None
    located = False
    on_result: Callable[[Result], None] = staticmethod(lambda _: None)

    def __init__(self, *jobs: Job) -> None:
        self.jobs = JobList(jobs)

    def result(self, job_id: int, *, up: bool, degraded: bool = False) -> None:
        self.on_result(
            Result(
                job_id=job_id,
                url="http://x/",
                scheduled_at=1.0,
                checked_at=1.0,
                up=up,
                degraded=degraded,
            )
        )


async def test_while_a_job_is_down_those_that_depend_on_it_are_unknown_with_results() -> None:
    known = Known(job(1), job(2, 1), job(3, 2), job(4), job(5, 1, active=False))
    book = JobRegistry(known, None)

    def states() -> list[str]:
        return [json.loads(book.encoded(job_id))["state"] for job_id in book.ids()]

    assert states() == ["unknown", "unknown", "unknown", "unknown", "inactive"]
    for job_id in (1, 2, 3, 4):
        known.result(job_id, up=True)
    assert states() == ["up", "up", "up", "up", "inactive"]
    book.dirty = set()
    known.result(1, up=False)
    assert book.dirty == {1, 2, 3, 5}
    behind = "unknown: depends on 1"
    assert states() == ["down", behind, behind, "up", "inactive"]
    known.result(3, up=False)
    assert states()[2] == behind
    assert len((await book.page(after=0, limit=10, state="unknown"))[0]) == 2
    last = book.entry(3).last
    assert last is not None
    assert not last.up
    known.result(1, up=True)
    assert states() == ["up", "up", "down", "up", "inactive"]
    known.result(1, up=False)
    known.jobs = JobList(known.jobs.jobs[1:])
    book.ids()
    assert states() == ["up", "down", "up", "inactive"]


async def test_a_long_page_lets_others_have_turns_and_leaves_out_what_they_delete() -> None:
    known = Known(*(job(number) for number in range(1, 5001)))
    book = JobRegistry(known, None)

    async def delete() -> None:
        known.jobs = JobList(known.jobs.jobs[:-1])

    reading = asyncio.create_task(book.page(after=0, limit=10_000))
    deleting = asyncio.create_task(delete())
    entries, more = await reading
    await deleting
    assert (len(entries), more) == (4999, None)
    assert [len((await book.page(after=4997, limit=each))[0]) for each in (1, 2, 3)] == [1, 2, 2]
    assert (await book.page(after=4997, limit=1))[1] == 4998
    assert (await book.page(after=4997, limit=2))[1] is None


async def test_thousands_of_changed_jobs_are_taken_over_many_turns_and_shown_as_they_are() -> None:
    count = 3000
    known = Known(*(job(number) for number in range(1, count + 1)))
    book = JobRegistry(known, None)
    feed = JobFeed(book, Changes())
    book.ids()
    await until(lambda: not book.is_taking)
    for number in (1, count - 1, count):
        known.result(number, up=False)
    assert set(await book.down_since()) == {1, count - 1, count}
    assert feed.news() == (None, True)
    # The first is gone, and the others check something else now.
    others = [read_job({"id": number, "url": "http://y/"}) for number in range(2, count + 1)]
    known.jobs = JobList(tuple(others))
    assert len(book.ids()) == count - 1
    # Those that nobody has come to yet are right all the same.
    assert book.entry(count - 1).state == "unknown"
    assert json.loads(book.encoded(count))["url"] == "http://y/"
    assert not await book.down_since()
    assert feed.news() == (None, False)
    # Of what the job was before.
    known.result(count, up=True)
    assert book.entry(count).state == "unknown"
    turns = 0
    while book.is_taking:
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 2 * count // 250
    assert book.dirty == {*range(2, count + 1)}
    assert feed.news() == (None, True)


async def test_thousands_of_dependents_are_touched_over_many_turns_and_shown_as_they_are() -> None:
    count = 3000
    chain = [job(2, 1), *(job(number, number - 1) for number in range(3, 50))]
    known = Known(job(1), *chain, *(job(number, 1) for number in range(50, count + 1)))
    book = JobRegistry(known, None)
    feed = JobFeed(book, Changes())
    book.ids()
    await until(lambda: not book.is_taking)
    for number in range(1, count + 1):
        known.result(number, up=True)
        book.encoded(number)
    assert feed.news() == (None, True)

    def sent() -> int:
        news, again = feed.news()
        assert not again
        items = [] if news is None else cast("list[Any]", news["items"])
        assert len(items) <= 200
        return len(items)

    for up, state in ((False, "unknown: depends on 1"), (True, "up")):
        known.result(1, up=up)
        assert len(book.dirty) <= 101
        # Those that nobody has come to yet are right all the same.
        assert {json.loads(book.encoded(each))["state"] for each in (2, 49, 50, count)} == {state}
        turns = 0
        while len(book.dirty) < count:
            await asyncio.sleep(0)
            turns += 1
        assert turns >= count // 100 - 1
        assert json.loads(book.encoded(49))["state"] == state
        pieces = [sent()]
        while feed.has_news:
            pieces.append(sent())
        assert sum(pieces) == count


async def test_very_many_dependencies_are_followed_over_many_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    width = 30
    layers = [range(1, width + 1), range(width + 1, 2 * width + 1), range(2 * width + 1, 91)]
    jobs = [job(each) for each in layers[0]]
    for below, layer in itertools.pairwise(layers):
        jobs += [job(each, *below) for each in layer]
    known = Known(*jobs)
    # Fewer are followed at once than there are.
    monkeypatch.setattr("monitor.web.jobs.down._MOST_FOLLOWED", width**2)
    asked = []
    monkeypatch.setattr("monitor.web.jobs.down.failed_dependency", lambda *_: asked.append(1))
    book = JobRegistry(known, None)
    top = layers[-1][-1]

    def state(job_id: int) -> str:
        return str(json.loads(book.encoded(job_id))["state"])

    for each in jobs:
        known.result(each.id, up=True)
    await until(lambda: not book.is_taking)
    assert state(top) == "up"
    known.result(2, up=False)
    turns = 0
    while state(top) == "up":
        await asyncio.sleep(0)
        turns += 1
    assert turns >= width**2 // 100
    assert state(top) == state(width + 1) == "unknown: depends on 2"
    known.result(1, up=False)
    known.result(2, up=True)
    await until(lambda: state(top) == "unknown: depends on 1")
    # Another list of jobs: the one between is gone, and so is what it depended on.
    alone = [*jobs[:-1], job(top)]
    known.jobs = JobList(tuple(alone))
    book.ids()
    await until(lambda: state(top) == "up")
    assert state(top - 1) == "unknown: depends on 1"
    known.result(1, up=True)
    await until(lambda: state(top - 1) == "up")
    assert not asked
    monkeypatch.undo()
    known.result(1, up=False)
    assert state(top - 1) == "unknown: depends on 1"


@pytest.mark.parametrize(
    ("outcome", "degraded"),
    [
        (Outcome(up=True, response_time=0.5), True),
        (Outcome(up=True, response_time=0.4), False),
        (Outcome(up=True), False),
        (Outcome(up=False, response_time=0.6, error="bad-status: 500"), False),
    ],
)
async def test_an_up_result_is_degraded_from_the_response_time_that_the_job_names(
    outcome: Outcome, degraded: bool
) -> None:
    async def attempt() -> Outcome:
        return outcome

    found, _ = await check_job(job(1, degraded_after=0.5), attempt)
    assert (found.up, found.degraded) == (outcome.up, degraded)
    assert not (await check_job(job(1), attempt))[0].degraded


def test_a_result_has_times_to_the_microsecond() -> None:
    found = result_of(
        job(1),
        Run(1, 5.0, 0),
        Outcome(
            up=True,
            response_time=0.0426892499821138,
            duration=1.00000049,
            phases=Phases(resolve=0.0001000000474974513, processing=0.04),
        ),
        url="http://x/",
        checked_at=5.0,
        producer=1,
        attempt=1,
    )
    assert (found.response_time, found.duration) == (0.042689, 1.0)
    assert found.phases == Phases(resolve=0.0001, processing=0.04)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"tags": [""]}, "tags"),
        ({"tags": ["a"] * 101}, "tags: more than 100"),
        ({"tags": ["a\0"]}, "tags[0]: must not contain NUL"),
        ({"depends_on": [0]}, "depends_on"),
        ({"degraded_after": 0}, "degraded_after"),
    ],
)
def test_common_keys_have_bounds(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_job({"id": 1, "url": "http://x/", **keys})
    assert said in str(caught.value)


def test_a_job_that_checks_something_else_now_is_unknown_and_a_deleted_one_is_nothing() -> None:
    known = Known(job(1), job(2))
    book = JobRegistry(known, None)
    assert list(book.ids()) == [1, 2]
    known.result(1, up=True)
    known.result(2, up=True)
    feed = JobFeed(book, Changes())
    feed.news()
    known.result(2, up=True, degraded=True)
    news, _ = feed.news()
    assert news is not None
    (line,) = cast("list[Any]", news["items"])
    assert (line.state, line.degraded) == ("up", True)
    other = read_job({"id": 1, "url": "http://y/"})
    known.jobs = JobList((other,))
    assert book.entry(1).state == "unknown"
    assert book.entry(1).last is None
    # These were running meanwhile.
    known.result(1, up=False)
    known.result(2, up=False)
    assert book.entry(1).state == "unknown"
    assert book.dirty <= {1}
    feed.news()
    book.dirty = {1, 2}
    news, again = feed.news()
    assert news is not None
    assert not again
    assert len(cast("list[object]", news["items"])) == 1


@pytest.mark.parametrize("length", [100, 5000])
def test_the_rest_of_a_chain_that_is_too_long_is_refused(length: int) -> None:
    circular = circular_jobs([job(1), *(job(each, each - 1) for each in range(2, length + 1))])
    assert bool(circular) == (length > 101)
    assert len(circular) >= length - 102
