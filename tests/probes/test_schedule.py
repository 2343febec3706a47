"""The grid: spread, never moving, never overlapping, whatever the clock does."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import islice

from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.probes.schedule import Run, Schedule, due_after, phase

NOW = 1_795_000_000.0
ids = st.integers(1, 2**63 - 1)
intervals = st.integers(100, 86_400_000)


def set_jobs(
    schedule: Schedule,
    jobs: Iterable[tuple[int, float]],
    now: float,
    *,
    before: Collection[int] = (),
    at_once: Collection[int] = (),
) -> None:
    """Schedule exactly these jobs, ids with their intervals in s, where there were some before."""
    left = set(before)
    for job_id, interval in jobs:
        left.discard(job_id)
        schedule.add(job_id, interval, now, first=now if job_id in at_once else None)
    for job_id in left:
        schedule.remove(job_id)


@given(ids, intervals, st.integers(0, 2_000_000_000_000))
def test_the_next_time_is_on_the_grid_and_within_an_interval(
    job_id: int, interval: int, now: int
) -> None:
    due = due_after(job_id, interval, now)
    assert now < due <= now + interval
    # the same from any point of view: no phase is lost on a restart
    assert due_after(job_id, interval, due) == due + interval
    assert due_after(job_id, interval, due - 1) == due
    assert (due - due_after(job_id, interval, 0)) % interval == 0


@given(st.integers(1, 2**60), st.integers(1, 2000))
def test_starts_are_spread_evenly_whatever_the_ids(first: int, step: int) -> None:
    places = [0] * 20
    for job_id in range(first, first + 4000 * step, step):
        places[int(phase(job_id) * 20)] += 1
    # 200 expected in each; 7 standard deviations
    assert all(100 < count < 300 for count in places)


def test_ten_thousand_jobs_never_start_in_a_crowd() -> None:
    buckets = [0] * 600
    for job_id in range(1, 10_001):
        buckets[due_after(job_id, 60_000, 0) // 100 % 600] += 1
    assert max(buckets) <= 100  # 1 % in any 100 ms


clocks = st.lists(
    st.one_of(
        st.floats(0, 0.2),
        st.floats(0, 30),
        st.floats(-100_000, 100_000),
    ),
    max_size=60,
)


@given(
    st.dictionaries(st.integers(1, 50), st.sampled_from([0.1, 0.5, 1.0, 7.5, 60.0]), min_size=1),
    clocks,
    st.randoms(use_true_random=False),
)
def test_any_clock_causes_no_overlap_no_storm_and_no_drift(
    jobs: dict[int, float], steps: list[float], random: object
) -> None:
    schedule = Schedule()
    now = NOW
    set_jobs(schedule, jobs.items(), now)
    running: set[int] = set()
    for step in steps:
        now += step
        # What was begun in steps may be left unfinished.
        for _ in islice(schedule.follow_clock(now), random.randrange(60)):  # type: ignore[attr-defined]
            pass
        runs = schedule.due(now)
        started = [run.job_id for run in runs]
        assert len(set(started)) == len(started), "twice at once"
        assert not running & set(started), "overlaps itself"
        for run in runs:
            interval = round(jobs[run.job_id] * 1000)
            scheduled = round(run.scheduled_at * 1000)
            assert due_after(run.job_id, interval, scheduled - 1) == scheduled, "off the grid"
            assert -0.001 <= now - run.scheduled_at <= 1.002, "made up for"
        running |= set(started)
        for job_id in sorted(running):
            if random.random() < 0.7:  # type: ignore[attr-defined]
                running.discard(job_id)
                schedule.finished(job_id)
        due = schedule.next_due()
        assert due is not None
        # a clock may be set back by up to a second without being noticed
        assert due <= now + min(jobs.values()) + 1.002, "silent after a clock set back"


@given(
    st.lists(st.floats(0.01, 5), min_size=1, max_size=50),
    st.randoms(use_true_random=False),
)
def test_every_time_on_the_grid_is_run_or_counted_as_missed(
    steps: list[float], random: object
) -> None:
    schedule = Schedule()
    set_jobs(schedule, [(1, 0.5)], NOW)
    first = schedule.next_due()
    assert first is not None
    now, counted, carried, running = NOW, 0, 0, False
    for step in steps:
        now += step
        for run in schedule.due(now):
            counted += 1 + run.missed
            carried += run.missed
            running = True
        if running and random.random() < 0.5:  # type: ignore[attr-defined]
            schedule.finished(1)
            running = False
    following = schedule.next_due()
    assert following is not None
    on_grid = round((following - first) / 0.5)
    waiting = schedule.missed_total - carried
    assert counted + waiting == on_grid


def test_a_reload_keeps_the_grid_what_runs_and_what_was_missed() -> None:
    schedule = Schedule()
    set_jobs(schedule, [(1, 1.0)], NOW)
    due = schedule.next_due()
    assert due is not None
    (run,) = schedule.due(due)
    assert run == Run(1, due, 0)
    assert schedule.due(due + 1) == []
    set_jobs(schedule, [(1, 1.0), (2, 1.0)], due + 1.5)
    schedule.finished(1)
    (run,) = (run for run in schedule.due(due + 2) if run.job_id == 1)
    assert run == Run(1, due + 2, 1)


def test_what_was_due_before_the_start_is_neither_late_nor_missed() -> None:
    jobs = [(number, 10.0) for number in range(1, 101)]
    schedule = Schedule()
    set_jobs(schedule, jobs, NOW, at_once=(1,))
    schedule.start(NOW + 25)
    asked_for, *others = schedule.due(NOW + 25.9)
    assert asked_for == Run(1, NOW, 0)
    assert others
    assert all(run.scheduled_at > NOW + 25 for run in others)
    assert schedule.missed_total == 0


def test_a_job_that_goes_and_comes_back_does_not_overlap_its_last_run() -> None:
    schedule = Schedule()
    set_jobs(schedule, [(1, 1.0)], NOW)
    due = schedule.next_due()
    assert due is not None
    assert schedule.due(due)
    set_jobs(schedule, [], due + 0.1, before=[1])
    set_jobs(schedule, [(1, 1.0)], due + 0.2)
    assert schedule.due(due + 1) == []
    schedule.finished(1)
    assert [run.missed for run in schedule.due(due + 2)] == [1]


def test_a_run_that_got_no_slot_is_missed_with_what_it_carried() -> None:
    schedule = Schedule()
    set_jobs(schedule, [(1, 1.0)], NOW)
    due = schedule.next_due()
    assert due is not None
    (run,) = schedule.due(due)
    schedule.missed(run)
    (run,) = schedule.due(due + 1)
    assert run.missed == 1


def test_a_first_run_is_not_missed_because_it_is_late() -> None:
    schedule = Schedule()
    set_jobs(schedule, [(7, 86400.0)], NOW, at_once=[7])
    # The loop was blocked for a minute.
    assert [run.job_id for run in schedule.due(NOW + 60)] == [7]
    assert schedule.missed_total == 0


@given(st.dictionaries(ids, intervals, min_size=1, max_size=30))
def test_new_jobs_run_at_once_and_then_on_their_grid(jobs: dict[int, int]) -> None:
    schedule = Schedule()
    set_jobs(schedule, [(0, 60.0)], NOW)
    every = [(0, 60.0), *((job_id, interval / 1000) for job_id, interval in jobs.items())]
    set_jobs(schedule, every, NOW, at_once=list(jobs))
    first = schedule.due(NOW + 1)
    started = {run.job_id for run in first}
    for job_id, interval in jobs.items():
        on_grid = due_after(job_id, interval, int(NOW * 1000)) / 1000
        assert job_id in started or on_grid > NOW + 1
        due = schedule.next_due(job_id)
        assert due is not None
        assert due_after(job_id, interval, round(due * 1000) - 1) == round(due * 1000)
        schedule.finished(job_id)
    assert schedule.missed_total == sum(run.missed for run in first)
    set_jobs(schedule, every, NOW + 1)
    assert schedule.next_due(0) == due_after(0, 60_000, int(NOW * 1000)) / 1000


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.sampled_from([0.0, 0.5, 7.5, 60.0])), max_size=60),
    st.integers(0, 60),
    clocks,
)
def test_times_that_are_dropped_on_the_way_change_no_run(
    steps: list[tuple[int, float]], tidy_after: int, clock: list[float]
) -> None:
    tidied, plain = Schedule(), Schedule()
    now = NOW
    tidying = None
    for number, (job_id, interval) in enumerate(steps):
        now += clock[number] if number < len(clock) else 0.1
        for schedule in (tidied, plain):
            if interval:
                schedule.add(job_id, interval, now)
            else:
                schedule.remove(job_id)
        if number == tidy_after:
            # As many as make it worth while.
            for each in range(100, 100 + 1100):
                tidied.add(each, 60.0, now)
                tidied.remove(each)
            tidying = tidied.tidy()
        if tidying is not None:
            next(tidying, None)
        runs = plain.due(now)
        assert tidied.due(now) == runs
        for run in runs:
            tidied.finished(run.job_id)
            plain.finished(run.job_id)
    for _ in tidying or ():
        pass
    for job_id in range(1, 10):
        assert tidied.next_due(job_id) == plain.next_due(job_id)
    for later in range(0, 100, 5):
        assert tidied.due(now + later) == plain.due(now + later)


def test_jobs_that_come_and_go_leave_nothing_behind() -> None:
    schedule = Schedule()
    schedule.add(1, 60.0, NOW)
    for _ in range(5000):
        schedule.add(2, 3600.0, NOW)
        schedule.remove(2)
        for _ in schedule.tidy():
            pass
    assert len(schedule._heap) <= 1010


def test_after_a_long_sleep_the_late_jobs_are_looked_at_in_parts() -> None:
    schedule = Schedule()
    set_jobs(schedule, [(number, 60.0) for number in range(1, 2501)], NOW)
    for _ in range(3):
        schedule.due(NOW + 3600)
    # Each had 60 times in that hour, of which the last may be recent enough.
    due = [schedule.next_due(number) for number in range(1, 2501)]
    assert min(each for each in due if each is not None) > NOW + 3600
