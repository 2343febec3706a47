"""What a purge may delete while the clock jumps."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.logs.jumps import Jumps
from monitor.store import Store
from tests.logs.running import NOW, Client, Clock, line, running
from tests.logs.test_retention import count

YEAR_S = 365 * 86400.0

steps = st.lists(
    st.tuples(st.floats(0.1, 100), st.sampled_from([0.0, 0.0, 0.0, 11.0, 500.0, -500.0, -11.0])),
    min_size=1,
    max_size=60,
)


@given(steps, st.floats(1, 1000))
def test_nothing_goes_before_its_time_and_all_goes_in_time(
    steps: list[tuple[float, float]], kept_s: float
) -> None:
    jumps, now, steady = Jumps(), NOW, 0.0
    jumps.look(now, steady)
    stored: list[tuple[float, float]] = []
    for took_s, jump_s in steps:
        stored.append((now, steady))
        steady += took_s
        now += took_s + jump_s
        assert jumps.look(now, steady) == pytest.approx(jump_s, abs=1e-3)
        oldest = now - kept_s - jumps.ahead_s(kept_s, steady)
        for said, at in stored:
            if said < oldest - 1e-3:
                assert steady - at > kept_s - 1e-3, "it went before its time"
        if all(jump >= 0 for _, jump in steps):
            # Without a clock that goes back: as soon as its time is over.
            for said, at in stored:
                assert said < oldest or steady - at <= kept_s + 1e-3, "it stays indefinitely"


@pytest.mark.parametrize("by_s", [9.0, -9.0])
def test_what_is_no_jump_is_none(by_s: float) -> None:
    jumps = Jumps()
    jumps.look(NOW, 0.0)
    assert jumps.look(NOW + 5 + by_s, 5.0) == 0.0
    assert jumps.ahead_s(60.0, 5.0) == 0.0


async def test_what_a_clock_that_is_set_wrong_makes_too_old_is_there_once_it_is_right_again(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def said() -> list[str]:
        return [each.getMessage() for each in caplog.records if each.name.startswith("monitor.")]

    with caplog.at_level(logging.WARNING):
        clock, steady = Clock(), Clock(0.0)
        async with running(
            store, clock, steady=steady, timewindow=600, keep_notifications=900
        ) as logs:
            client = Client(logs)
            await client.upload("a")
            await client.ask("uploadNotifications", notifications=[line("n")])
            await logs.retain()
            assert said() == []
            clock.now += YEAR_S + 300
            steady.now += 300
            await logs.retain()
            (ahead,) = said()
            assert ahead.startswith(f"the clock jumped {YEAR_S:.0f} s ahead")
            # Not shown, as the clock has it; and kept.
            assert await client.texts() == []
            clock.now -= YEAR_S
            await logs.retain()
            assert await client.texts() == ["a"]
            # From then on all is as ever.
            clock.now += 301
            steady.now += 301
            await logs.retain()
            assert await store.read(count()) == 0
            assert await store.read(count("notification")) == 1
            clock.now += 300
            steady.now += 300
            await logs.retain()
            assert await store.read(count("notification")) == 0


async def test_after_a_window_a_clock_that_jumped_is_taken_for_right(store: Store) -> None:
    clock, steady = Clock(), Clock(0.0)
    async with running(store, clock, steady=steady, timewindow=600) as logs:
        client = Client(logs)
        await client.upload("old")
        await logs.retain()
        clock.now += YEAR_S
        await logs.retain()
        await client.upload("new", time=clock.now)
        for _ in range(3):
            clock.now += 199
            steady.now += 199
            await logs.retain()
            assert await store.read(count()) == 2
        clock.now += 4
        steady.now += 4
        await logs.retain()
        assert await client.texts() == []
        assert await store.read(count()) == 0
