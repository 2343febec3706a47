"""The grid: spread, never moving, never overlapping, whatever the clock does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from monitor.probes.schedule import Run, Schedule, due_after, phase

NOW = 1_795_000_000.0
ids = st.integers(1, 2**63 - 1)
intervals = st.integers(100, 86_400_000)


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
    schedule.set_jobs(jobs.items(), now)
    running: set[int] = set()
    for step in steps:
        now += step
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
    schedule.set_jobs([(1, 0.5)], NOW)
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
    schedule.set_jobs([(1, 1.0)], NOW)
    due = schedule.next_due()
    assert due is not None
    (run,) = schedule.due(due)
    assert run == Run(1, due, 0)
    assert schedule.due(due + 1) == []
    schedule.set_jobs([(1, 1.0), (2, 1.0)], due + 1.5)
    schedule.finished(1)
    (run,) = (run for run in schedule.due(due + 2) if run.job_id == 1)
    assert run == Run(1, due + 2, 1)


def test_what_was_due_before_the_start_is_neither_late_nor_missed() -> None:
    jobs = [(number, 10.0) for number in range(1, 101)]
    schedule = Schedule()
    schedule.set_jobs(jobs, NOW, at_once=(1,))
    schedule.start(NOW + 25)
    asked_for, *others = schedule.due(NOW + 25.9)
    assert asked_for == Run(1, NOW, 0)
    assert others
    assert all(run.scheduled_at > NOW + 25 for run in others)
    assert schedule.missed_total == 0


def test_a_job_that_goes_and_comes_back_does_not_overlap_its_last_run() -> None:
    schedule = Schedule()
    schedule.set_jobs([(1, 1.0)], NOW)
    due = schedule.next_due()
    assert due is not None
    assert schedule.due(due)
    schedule.set_jobs([], due + 0.1)
    schedule.set_jobs([(1, 1.0)], due + 0.2)
    assert schedule.due(due + 1) == []
    schedule.finished(1)
    assert [run.missed for run in schedule.due(due + 2)] == [1]


def test_a_run_that_got_no_slot_is_missed_with_what_it_carried() -> None:
    schedule = Schedule()
    schedule.set_jobs([(1, 1.0)], NOW)
    due = schedule.next_due()
    assert due is not None
    (run,) = schedule.due(due)
    schedule.missed(run)
    (run,) = schedule.due(due + 1)
    assert run.missed == 1


def test_a_first_run_is_not_missed_because_it_is_late() -> None:
    schedule = Schedule()
    schedule.set_jobs([(7, 86400.0)], NOW, at_once=[7])
    # The loop was blocked for a minute.
    assert [run.job_id for run in schedule.due(NOW + 60)] == [7]
    assert schedule.missed_total == 0


@given(st.dictionaries(ids, intervals, min_size=1, max_size=30))
def test_new_jobs_run_at_once_and_then_on_their_grid(jobs: dict[int, int]) -> None:
    schedule = Schedule()
    schedule.set_jobs([(0, 60.0)], NOW)
    every = [(0, 60.0), *((job_id, interval / 1000) for job_id, interval in jobs.items())]
    schedule.set_jobs(every, NOW, at_once=list(jobs))
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
    schedule.set_jobs(every, NOW + 1)
    assert schedule.next_due(0) == due_after(0, 60_000, int(NOW * 1000)) / 1000


@given(
    st.dictionaries(ids, intervals, min_size=1, max_size=30),
    st.floats(-100_000, 100_000),
    st.data(),
)
def test_what_was_foreseen_at_another_time_changes_no_run(
    jobs: dict[int, int], passed: float, data: st.DataObject
) -> None:
    prepared, plain = Schedule(), Schedule()
    before = data.draw(st.sets(st.sampled_from(sorted(jobs))))
    for schedule in (prepared, plain):
        schedule.set_jobs([(job_id, 1.0) for job_id in sorted(before)], NOW)
    for job_id, interval in jobs.items():
        # Of some, the interval is another one in the end.
        prepared.foresee(job_id, data.draw(st.sampled_from([1.0, interval / 1000])), NOW)
    for schedule in (prepared, plain):
        every = [(job_id, interval / 1000) for job_id, interval in jobs.items()]
        schedule.set_jobs(every, NOW + passed)
    for job_id in jobs:
        assert prepared.next_due(job_id) == plain.next_due(job_id)
    later = NOW + passed + 100
    assert prepared.due(later) == plain.due(later)
