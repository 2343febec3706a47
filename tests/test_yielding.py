"""Threads yield to the loop, and never wait for one that does not turn."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator

import pytest

from monitor import yielding

FOR_EVER_S = 60.0


async def in_thread(work: object) -> threading.Thread:
    thread = threading.Thread(target=work)  # type: ignore[arg-type]
    thread.start()
    return thread


async def test_a_thread_goes_on_when_the_loop_has_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yielding, "_PATIENCE_S", FOR_EVER_S)
    order: list[str] = []
    asks = threading.Event()

    def work() -> None:
        asks.set()
        yielding.yield_to_loop()
        order.append("thread")

    loop = asyncio.get_running_loop()
    with yielding.attending(loop):
        thread = await in_thread(work)
        asks.wait(60)
        # Whatever the loop has begun, it ends before the thread continues.
        order.append("loop")
        while thread.is_alive():
            await asyncio.sleep(0)
        thread.join()
    assert order == ["loop", "thread"]


def test_all_items_come_in_order_with_a_breath_after_each_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(yielding, "_PIECE_S", 0.0)
    got: list[int] = []
    breaths: list[int] = []
    monkeypatch.setattr(yielding, "yield_to_loop", lambda: breaths.append(1))
    got.extend(yielding.in_slices(range(25), every=10))
    assert got == list(range(25))
    assert len(breaths) == 2


def test_what_is_done_sooner_than_a_piece_takes_needs_no_breath(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(yielding, "_PIECE_S", FOR_EVER_S)
    monkeypatch.setattr(yielding, "yield_to_loop", lambda: pytest.fail("not yet"))
    assert list(yielding.in_slices(range(25), every=10)) == list(range(25))


async def test_a_loop_that_does_not_turn_keeps_no_thread_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(yielding, "_PATIENCE_S", 0.01)

    with yielding.attending(asyncio.get_running_loop()):
        thread = await in_thread(yielding.yield_to_loop)
        thread.join(FOR_EVER_S)
        assert not thread.is_alive()


async def test_the_loops_own_thread_and_one_without_a_loop_never_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(yielding, "_PATIENCE_S", FOR_EVER_S)
    yielding.yield_to_loop()

    with yielding.attending(asyncio.get_running_loop()):
        yielding.yield_to_loop()
    closed = asyncio.new_event_loop()
    closed.close()
    with yielding.attending(closed):
        thread = threading.Thread(target=yielding.yield_to_loop)
        thread.start()
        thread.join(FOR_EVER_S)
        assert not thread.is_alive()


@pytest.fixture
def freezes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many objects each freeze froze; what is freed later does not count."""
    found: list[int] = []
    freeze = gc.freeze

    def counted() -> None:
        before = gc.get_freeze_count()
        freeze()
        found.append(gc.get_freeze_count() - before)

    gc.collect()
    freeze()
    monkeypatch.setattr(gc, "freeze", counted)
    return found


def test_a_large_load_is_looked_at_by_no_full_collection(freezes: list[int]) -> None:
    before = gc.get_threshold()
    with yielding.large_load():
        few: list[list[int]] = [[]]
    assert not freezes
    with yielding.large_load():
        assert gc.get_threshold()[:2] == before[:2]
        with yielding.large_load():
            many = [[number] for number in range(100_000)]
        assert gc.get_threshold()[2] > 10**9
    assert gc.get_threshold() == before
    (frozen,) = freezes
    assert frozen >= len(many) + len(few)


class _Node:
    def __init__(self) -> None:
        self.itself = self


def large_load_with_garbage_before() -> tuple[bool, list[list[int]]]:
    """Return whether the garbage is gone, and what was loaded."""
    node = _Node()
    gone = weakref.ref(node)
    del node
    with yielding.large_load():
        many = [[number] for number in range(100_000)]
    return gone() is None, many


def test_a_large_load_freezes_no_garbage_that_was_there(
    monkeypatch: pytest.MonkeyPatch, freezes: list[int]
) -> None:
    monkeypatch.setattr(yielding, "_FEW_OBJECTS", 10**9)
    gone, many = large_load_with_garbage_before()
    assert gone
    (frozen,) = freezes
    assert frozen >= len(many)


def test_garbage_of_many_objects_is_frozen_once_an_hour(
    monkeypatch: pytest.MonkeyPatch, freezes: list[int]
) -> None:
    monkeypatch.setattr(yielding, "_FEW_OBJECTS", 0)
    monkeypatch.setattr(yielding._Loads, "freeze_again_at", 0.0)
    _, kept = large_load_with_garbage_before()
    _, more = large_load_with_garbage_before()
    (frozen,) = freezes
    assert frozen >= len(kept) == len(more)


async def test_steps_are_made_in_part_at_once_and_the_rest_in_later_turns() -> None:
    made: list[int] = []

    def steps() -> Iterator[None]:
        for each in range(25):
            made.append(each)
            yield

    yielding.in_turns(steps(), at_once=10)
    counts = [len(made)]
    for _ in range(3):
        await asyncio.sleep(0)
        counts.append(len(made))
    assert counts == [10, 20, 25, 25]
    assert made == list(range(25))


async def test_what_a_list_has_last_is_freed_over_several_turns() -> None:
    class Item:
        pass

    alive = weakref.WeakSet(each := [Item() for _ in range(500)])
    yielding.free_in_turns(each)
    del each
    counts = [len(alive)]
    while alive:
        await asyncio.sleep(0)
        counts.append(len(alive))
    assert len(counts) == 3
    assert counts[1] >= 99
