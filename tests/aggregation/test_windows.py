"""Counters and percentiles, against plain computations."""

from __future__ import annotations

import math
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.aggregation.batch import Pending, parse_records
from monitor.aggregation.windows import (
    WIDTHS_S,
    Counters,
    Window,
    aggregate,
    bucket_of,
    percentile,
    window_start,
)
from monitor.messages import Result, decode_result, encode
from tests.aggregation.plain import bucket, plain_tables, record, result, start_of

response_times = st.floats(1e-6, 1e6)
instants = st.floats(0, 4e9).map(lambda at: round(at, 3))


@st.composite
def results(draw: st.DrawFn) -> list[Result]:
    made = []
    for number in range(draw(st.integers(0, 30))):
        time = draw(st.none() | response_times)
        data = result(
            draw(st.integers(1, 3)),
            draw(st.sampled_from([0.0, 59.999, 60.0, 86399.0, 86400.0, 1612839600.5]))
            + number * 1e-5,
            up=draw(st.booleans()),
            status=draw(st.sampled_from([None, 0, 200, 404, 503])),
            response_time=time,
            location=draw(st.sampled_from(["", "prague"])),
        )
        made.append(decode_result(encode(data)))
    return made


def plain(windows: dict[Window, Counters]) -> dict[tuple[int, int, str, str], tuple[object, ...]]:
    return {
        window: (
            counters.checks,
            counters.failures,
            counters.rt_min,
            counters.rt_max,
            round(counters.rt_sum, 6),
            counters.data,
            counters.rt_buckets,
        )
        for window, counters in windows.items()
    }


@given(results())
def test_counters_equal_a_plain_computation(made: list[Result]) -> None:
    expected = plain_tables(record(number, encode(item)) for number, item in enumerate(made))
    found = plain(aggregate(made, list(WIDTHS_S)))
    assert found.keys() == expected.metrics.keys()
    for key, (*counts, total, data, buckets) in expected.metrics.items():
        *found_counts, found_total, found_data, found_buckets = found[key]
        assert (found_counts, found_data, found_buckets) == (counts, data, buckets)
        assert found_total == pytest.approx(total, rel=1e-9)


@given(results(), st.integers(0, 30), st.randoms(use_true_random=False))
def test_counters_of_parts_in_any_order_add_up(
    made: list[Result], cut: int, random: Random
) -> None:
    whole = aggregate(made, ["minute", "day"])
    shuffled = list(made)
    random.shuffle(shuffled)
    first = aggregate(shuffled[:cut], ["minute", "day"])
    for window, counters in aggregate(shuffled[cut:], ["minute", "day"]).items():
        first.setdefault(window, Counters()).add(counters)
    summed, expected = plain(first), plain(whole)
    assert summed.keys() == expected.keys()
    for key, values in expected.items():
        assert summed[key][4] == pytest.approx(values[4], rel=1e-9)
        assert summed[key][:4] == values[:4]
        assert summed[key][5:] == values[5:]


@given(instants, st.sampled_from(list(WIDTHS_S)))
def test_a_window_starts_where_the_calendar_says(instant: float, granularity: str) -> None:
    assert window_start(instant, granularity) == start_of(instant, granularity)


@given(response_times)
def test_a_bucket_holds_the_times_up_to_its_bound(time: float) -> None:
    assert abs(bucket_of(time) - bucket(time)) <= 1  # on a bound, rounding decides
    assert bucket_of(time) == bucket(time) or math.isclose(
        time, 1.04 ** min(bucket_of(time), bucket(time)), rel_tol=1e-9
    )


@given(st.lists(response_times, min_size=1, max_size=200), st.floats(0, 1))
def test_a_percentile_is_within_two_percent(times: list[float], fraction: float) -> None:
    counts = Counter(str(bucket_of(time)) for time in times)
    rank = min(max(math.ceil(fraction * len(times)), 1), len(times))
    true = sorted(times)[rank - 1]
    bounded = percentile(counts, fraction, rt_min=min(times), rt_max=max(times))
    for found in (percentile(counts, fraction), bounded):
        assert found is not None
        assert abs(found - true) <= 0.02 * true
    assert bounded is not None
    assert min(times) <= bounded <= max(times)


def test_the_ends_are_exact_and_nothing_has_no_percentile() -> None:
    counts = Counter(str(bucket_of(time)) for time in (0.1, 0.2, 0.3))
    assert percentile(counts, 0.0, rt_min=0.1, rt_max=0.3) == 0.1
    assert percentile(counts, 1.0, rt_min=0.1, rt_max=0.3) == 0.3
    for same in (0.0, 0.5):
        assert percentile({str(bucket_of(same)): 9}, 0.5, rt_min=same, rt_max=same) == same
    assert percentile({}, 0.5) is None


@pytest.mark.parametrize("time", [0.0, 1e-12, 1e-6])
def test_times_too_short_to_measure_count_as_a_microsecond(time: float) -> None:
    assert percentile({str(bucket_of(time)): 1}, 0.5) == 1e-6


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5)), max_size=40), st.integers(1, 7))
def test_pending_gives_everything_once_in_order(adds: list[tuple[int, int]], limit: int) -> None:
    pending = Pending()
    offsets = Counter[int]()
    added = []
    for partition, count in adds:
        records = []
        for _ in range(count):
            records.append(record(offsets[partition], b"no result", partition))
            offsets[partition] += 1
        pending.add(parse_records(records, now=0.0, keep_s=1e9), clock=1.0)
        added += [(item.partition, item.offset) for item in records]
    assert len(pending) == len(added)
    assert pending.size_bytes == len(added) * len(b"no result")
    taken = []
    reached: dict[int, int] = {}
    while pending:
        batch = pending.take(limit)
        assert 0 < len(batch) <= limit
        taken += [(entry.partition, entry.offset) for entry in batch.entries]
        reached.update(batch.next_offsets)
    assert taken == added
    assert reached == offsets
    assert (pending.size_bytes, pending.since) == (0, None)
