"""Settings of the Python interpreter that keep the loop quick."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

__all__ = ["new_event_loop", "settle_garbage", "take_short_turns", "with_own_threads"]

# Thresholds of the garbage collector's generations (gc.set_threshold). With the default of 700 new
# objects it would run thousands of times while thousands of clients connect, and find nothing:
# the relay creates no reference cycles. A young collection takes up to 2 ms, one of the middle
# generation up to 10 ms, and a full one, of everything, comes after a million objects that stay.
_GARBAGE = (4_000, 3, 80)
# At the default of 5 ms, a busy thread would delay the loop for that long.
_TURN_S = 0.0005


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a loop of uvloop if it is installed, else of asyncio."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


@contextlib.contextmanager
def with_own_threads(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Give the loop threads for blocking calls that its close does not wait for."""
    threads = ThreadPoolExecutor(thread_name_prefix="worker")
    loop.set_default_executor(threads)
    try:
        yield
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        loop.set_default_executor(ThreadPoolExecutor(1))


def settle_garbage() -> None:
    """Exclude existing objects from garbage collection, and collect less often.

    Objects from the start of the daemon stay. Each full collection would scan them, which blocks
    the loop for about 50 ms.
    """
    gc.freeze()
    gc.set_threshold(*_GARBAGE)


def take_short_turns() -> None:
    """Let a busy thread delay the loop only briefly."""
    sys.setswitchinterval(_TURN_S)
