"""What happens when: the same for the same seed, each kind, and the lethal ones early."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.plan import (
    CLOCK_STEP_S,
    DAEMON_FAULTS,
    WORLD_FAULTS,
    clock_eras,
    daemon_lanes,
    plan,
)

ALL = frozenset({"clock", "disk", "servers"})
LETHAL = {kind.name for kind in DAEMON_FAULTS if kind.lethal}
seeds = st.integers(0, 1_000_000)


@given(seeds, st.floats(10, 600))
def test_a_seed_gives_one_plan_in_order_without_overlap(seed: int, duration_s: float) -> None:
    faults = plan(seed, duration_s, DAEMON_FAULTS, targets=["one", "two"], abilities=ALL)
    assert faults == plan(seed, duration_s, DAEMON_FAULTS, targets=["one", "two"], abilities=ALL)
    assert all(fault.at_s < duration_s for fault in faults)
    for before, after in itertools.pairwise(faults):
        assert after.at_s >= before.at_s + before.lasts_s


@given(seeds)
def test_a_long_plan_has_every_kind_and_ends_no_process_at_its_end(seed: int) -> None:
    for kinds in (DAEMON_FAULTS, WORLD_FAULTS):
        faults = plan(seed, 300, kinds, abilities=ALL)
        assert {fault.kind for fault in faults} == {kind.name for kind in kinds}
        assert not [fault for fault in faults if fault.kind in LETHAL and fault.at_s > 200]


@given(seeds)
def test_a_run_that_only_kills_does_so_to_each_daemon_until_its_end(seed: int) -> None:
    one, two = daemon_lanes(seed, 300, ["one", "two"], ALL, only_kill=True)
    assert one != two
    for lane, target in ((one, "one"), (two, "two")):
        assert {fault.kind for fault in lane} == {
            "kill", "kill-starting", "kill-children", "kill-while-full",
        }  # fmt: skip
        assert {fault.target for fault in lane} == {target}
        assert lane[-1].at_s > 285


@given(seeds, st.floats(1, 100))
def test_what_a_machine_cannot_do_never_comes(seed: int, duration_s: float) -> None:
    needs = {kind.name for kind in (*DAEMON_FAULTS, *WORLD_FAULTS) if kind.needs}
    for kinds in (DAEMON_FAULTS, WORLD_FAULTS):
        assert not needs & {fault.kind for fault in plan(seed, duration_s, kinds)}


@given(seeds)
def test_the_clock_never_comes_back_to_where_it_was(seed: int) -> None:
    eras = [0.0, *clock_eras(seed)]
    assert len(set(eras)) == len(eras)
    assert all(abs(one - other) >= CLOCK_STEP_S for one, other in itertools.combinations(eras, 2))
    assert max(eras) > 0 > min(eras)
