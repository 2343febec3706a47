"""What keeps an incident back, and what is sent when it does no longer."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from monitor.alerts.jobs import JobFacts
from monitor.alerts.settings import Match
from monitor.alerts.silences import add_silence, delete_silence
from monitor.alerts.suppression import Dependency, Subject, Surroundings
from tests.alerts.receiver import HttpReceiver
from tests.alerts.running import SITE, running, settings, webhook

pytestmark = pytest.mark.usefixtures("soon")

NOW = 1_700_000_000.0
ROUTER = JobFacts(id=1, name="router", url="http://1/", interval=60.0)
BEHIND = JobFacts(id=2, name="behind", url="http://2/", interval=60.0, depends_on=(1,))
FAR = JobFacts(id=3, name="far", url="http://3/", interval=60.0, depends_on=(2,), tags=("p",))
# A circle, which must not be walked in circles.
ROUND = JobFacts(id=4, name="round", url="http://4/", interval=60.0, depends_on=(4, 5))
TRIP = JobFacts(id=5, name="trip", url="http://5/", interval=60.0, depends_on=(4,))
JOBS = {job.id: job for job in (ROUTER, BEHIND, FAR, ROUND, TRIP)}


def subject(job_id: int, **changes: object) -> Subject:
    found = Subject(
        rule="site",
        watch="site",
        subject=str(job_id),
        job_id=job_id,
        opened_at=NOW - 10,
        noted_at=NOW - 10,
        since=NOW - 10,
        bad_at=NOW - 1,
        announced=False,
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def by(around: Surroundings, found: Subject) -> str | None:
    suppression = around.suppression(found)
    if suppression is not None:
        assert around.now < suppression.look_at <= around.now + 60
    return None if suppression is None else suppression.by


def test_a_site_waits_while_what_it_depends_on_is_down_directly_or_through_others() -> None:
    down = Surroundings(
        now=NOW,
        jobs=JOBS,
        dependencies={
            1: Dependency(down=True, since=NOW - 9, seen_at=NOW),
            2: Dependency(down=False, since=0.0, seen_at=NOW),
        },
    )
    assert by(down, subject(2)) == "job 1"
    assert by(down, subject(3)) == "job 1"
    assert by(down, subject(1)) is None
    assert by(down, subject(2, announced=True)) is None


def test_after_the_outage_of_a_dependency_one_more_failure_is_needed() -> None:
    up = Surroundings(
        now=NOW,
        jobs=JOBS,
        dependencies={1: Dependency(down=False, since=NOW - 5, seen_at=NOW)},
    )
    assert by(up, subject(2, bad_at=NOW - 6)) == "job 1"
    assert by(up, subject(2, bad_at=NOW - 4)) is None
    # It was up long before the site failed.
    long_up = replace(up, dependencies={1: Dependency(down=False, since=0.0, seen_at=NOW)})
    assert by(long_up, subject(2, bad_at=NOW - 6)) is None


def test_a_result_of_the_dependency_is_awaited_but_not_for_long() -> None:
    old = Surroundings(
        now=NOW,
        jobs=JOBS,
        dependencies={1: Dependency(down=False, since=0.0, seen_at=NOW - 60)},
    )
    assert by(old, subject(2)) == "job 1, whose next result is awaited"
    assert by(replace(old, now=NOW + 120), subject(2)) is None
    stopped = {**JOBS, 1: replace(ROUTER, running=False)}
    assert by(replace(old, jobs=stopped), subject(2)) is None


def test_a_circle_of_dependencies_ends() -> None:
    around = Surroundings(
        now=NOW,
        jobs=JOBS,
        dependencies={job_id: Dependency(down=False, since=0.0, seen_at=NOW) for job_id in (4, 5)},
    )
    assert by(around, subject(4)) is None


def test_a_flapping_subject_waits_until_it_stays_in_trouble() -> None:
    around = Surroundings(now=NOW, jobs={}, flapping={("site", "9"): 5}, flapping_within=1800)
    assert by(around, subject(9)) == "flapping, 5 incidents in 30 min"
    assert by(around, subject(9, noted_at=NOW - 300)) is None
    assert by(around, subject(8)) is None


async def test_what_was_silenced_is_sent_when_the_silence_ends_and_it_is_still_down(
    tmp_path: Path,
) -> None:
    async with HttpReceiver() as receiver, running(tmp_path, webhook(receiver.url)) as now:

        def silence(job_id: int) -> object:
            return now.store.transaction(
                lambda c: add_silence(
                    c,
                    match=Match(jobs=(job_id,)),
                    until=time.time() + 3600,
                    comment="",
                    by="me",
                    now=time.time(),
                )
            )

        silences = [await silence(1), await silence(2)]  # type: ignore[misc]
        await now.check((1, False), (2, False), (1, False), (2, False))
        found = await now.until(lambda found: all(each.suppressed_by for each in found) and found)
        assert [each.suppressed_by for each in found] == [f"silence {each.id}" for each in silences]
        # It ends while it is silenced: nobody hears of it.
        await now.check((2, True))
        await now.until(lambda found: found[1].resolved_at)
        for each in silences:
            assert await now.store.transaction(
                lambda c, each=each: delete_silence(c, each.id, time.time())  # type: ignore[misc]
            )
        await receiver.until(1)
        assert receiver.events() == [("opened", "1")]
        found = await now.until(lambda found: found[0].suppressed_by is None)
        assert found[1].notified == ()


async def test_a_window_of_maintenance_that_a_reload_removes_keeps_nothing_back(
    tmp_path: Path,
) -> None:
    async with HttpReceiver() as receiver:
        always = {"name": "always", "match": {"tags": ["p"]}}
        config = webhook(receiver.url, maintenance=[always])
        async with running(tmp_path, config, FAR, ROUTER) as now:
            await now.check((3, False), (1, False), (3, False), (1, False))
            await receiver.until(1)
            assert receiver.events() == [("opened", "1")]
            await now.until(lambda found: found[0].suppressed_by == "maintenance always")
            await now.reload(settings(**webhook(receiver.url)))
            await receiver.until(2)
            assert receiver.events()[1:] == [("opened", "3")]


async def test_behind_a_router_that_is_down_only_the_router_is_sent(tmp_path: Path) -> None:
    async with HttpReceiver() as receiver:
        config = webhook(receiver.url, {**SITE, "failures": 1})
        async with running(tmp_path, config, ROUTER, BEHIND) as now:
            await now.check((2, False))  # the site is checked first
            await now.until(lambda found: found and found[0].suppressed_by)
            await now.check((1, False))
            await receiver.until(1)
            await now.until(lambda found: found[0].suppressed_by == "job 1")
            await now.check((1, True))
            await receiver.until(2)
            await now.check((2, False))
            await receiver.until(3)
            assert receiver.events() == [("opened", "1"), ("resolved", "1"), ("opened", "2")]


async def test_a_site_that_flaps_is_sent_a_few_times(tmp_path: Path) -> None:
    async with HttpReceiver() as receiver:
        config = webhook(receiver.url, {**SITE, "failures": 1}, flapping=2)
        async with running(tmp_path, config) as now:
            for count in range(2):
                await now.check((1, False))
                await receiver.until(2 * count + 1)
                await now.check((1, True))
                await receiver.until(2 * count + 2)
            await now.check((1, False))
            found = await now.until(lambda found: len(found) == 3 and found[2].suppressed_by)
            assert found[2].suppressed_by == "flapping, 2 incidents in 30 min"
