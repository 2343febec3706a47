"""Gives the loop priority over busy threads of the same process.

Threads share the interpreter lock with the loop, which gets it back from a busy thread only after
``sys.getswitchinterval()``, and has to do so whenever it has released it (to send, to wait). So a
busy thread works in slices of a few milliseconds, and between two of them waits until the loop
has turned. A busy loop slows it down; an idle loop costs it almost nothing.

The garbage collector does not work in slices: while it looks at all objects of the process, every
thread stands still.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any, TypeVar

__all__ = [
    "attending",
    "free_in_turns",
    "in_slices",
    "in_turns",
    "large_load",
    "lower_priority",
    "over_turns",
    "yield_to_loop",
]

T = TypeVar("T")

_PIECE_S = 0.002
# The niceness of threads with work that can wait.
_NICE = 10
# How long a thread waits for a loop that does not turn.
_PATIENCE_S = 0.05
# A load that leaves so many blocks of memory is large: about 1000 jobs.
_MANY_BLOCKS = 50_000
# A full collection of this many objects takes 5 to 10 ms.
_FEW_OBJECTS = 10_000
# Between two freezes of what may have garbage.
_FREEZE_AGAIN_S = 3600.0
# More collections of the middle generation than ever come.
_NEVER = 2**31 - 1

# The loop of this process that has priority, and its thread. There is one, like the interpreter
# lock.
_attended: tuple[asyncio.AbstractEventLoop, int] | None = None


@contextlib.contextmanager
def attending(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Give this loop, which runs in the calling thread, priority inside the ``with`` block."""
    global _attended  # noqa: PLW0603 - see above
    before, _attended = _attended, (loop, threading.get_ident())
    try:
        yield
    finally:
        _attended = before


class _Loads:
    """How many large loads are under way, and what they change of the garbage collector."""

    under_way = 0
    full = 0
    blocks = 0
    # Whether there was no garbage at the beginning; when (monotonic s) some may be frozen again.
    clean = False
    freeze_again_at = 0.0


@contextlib.contextmanager
def large_load() -> Iterator[None]:
    """Make many objects that stay, in the loop's thread or for it, without full collections.

    One would hold every thread for some 100 ms for a million objects. Young garbage is collected
    all the same. If much is left at the end, later collections do not look at what is there now.
    Garbage among that would never be freed: it is collected before, or if that takes too long,
    there is no further such freeze within an hour.
    """
    if not _Loads.under_way:
        _Loads.clean = len(gc.get_objects()) < _FEW_OBJECTS
        if _Loads.clean:
            gc.collect()
        young, middle, _Loads.full = gc.get_threshold()
        gc.set_threshold(young, middle, _NEVER)
        _Loads.blocks = sys.getallocatedblocks()
    _Loads.under_way += 1
    try:
        yield
    finally:
        _Loads.under_way -= 1
        if not _Loads.under_way:
            grown = sys.getallocatedblocks() - _Loads.blocks > _MANY_BLOCKS
            now = time.monotonic()
            if grown and (_Loads.clean or now >= _Loads.freeze_again_at):
                if not _Loads.clean:
                    _Loads.freeze_again_at = now + _FREEZE_AGAIN_S
                gc.freeze()
            young, middle, _ = gc.get_threshold()
            gc.set_threshold(young, middle, _Loads.full)


def lower_priority() -> None:
    """Lower the scheduling priority of the calling thread.

    While a thread with the interpreter lock waits for a processor, the loop waits, too. But other
    threads of this process do not compete for the processor, because they wait for the lock.
    """
    # Linux has a niceness per thread; without the permission to set it, all stay equal.
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def yield_to_loop() -> None:
    """Wait until the loop has turned once, for a moment at most; does nothing in its thread."""
    attended = _attended
    if attended is None or attended[1] == threading.get_ident():
        return
    turned = threading.Lock()
    turned.acquire()
    try:
        attended[0].call_soon_threadsafe(turned.release)
    except RuntimeError:  # closed
        return
    turned.acquire(timeout=_PATIENCE_S)


async def over_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield ``items`` in the loop's own thread, in slices of about 2 ms, each in a turn of its own.

    Each item must take much less than a slice.
    """
    until = time.monotonic() + _PIECE_S
    for item in items:
        yield item
        if time.monotonic() >= until:
            await asyncio.sleep(0)
            until = time.monotonic() + _PIECE_S


def in_turns(steps: Iterator[object], *, at_once: int = 200) -> None:
    """Make some ``steps`` now, and as many in each further turn of the loop, in its own thread.

    Each must take at most some 10 us. Closing a generator of steps ends them.
    """
    if sum(1 for _ in islice(steps, at_once)) == at_once:
        asyncio.get_running_loop().call_soon(partial(in_turns, steps, at_once=at_once))


def free_in_turns(items: list[Any]) -> None:
    """Free what only this list still has as :func:`in_turns` does, and the list."""
    in_turns(_popped(items))


def _popped(items: list[T]) -> Iterator[T]:
    while items:
        yield items.pop()


def in_slices(items: Iterable[T], *, every: int = 16) -> Iterator[T]:
    """Yield ``items``, and call yield_to_loop after each slice of about 2 ms.

    It checks the time after a number of items. Each item must take much less than a slice, and
    the caller must not hold a lock that the loop needs.
    """
    until = time.monotonic() + _PIECE_S
    left = every
    for item in items:
        yield item
        left -= 1
        if not left:
            left = every
            if time.monotonic() >= until:
                yield_to_loop()
                until = time.monotonic() + _PIECE_S
