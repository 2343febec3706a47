"""Lets the loop go first where threads of the same process have much to do in Python.

Threads share one interpreter with the loop, which wins it back from a busy thread only after
``sys.getswitchinterval()``, and each time that it releases it (to send, to wait) it has to
win it again. So a thread with much to do does it in pieces of a few milliseconds, and between two
of them waits until the loop has turned: the busier the loop, the fewer pieces, and a loop
with nothing to do costs a piece next to nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["attending", "in_slices", "lower_priority", "yield_to_loop"]

T = TypeVar("T")

_PIECE_S = 0.002
# How nice threads are that do what can wait.
_NICE = 10
# How long a thread waits for a loop that does not turn.
_PATIENCE_S = 0.05

# The loop to which this process's threads yield, and its thread. One a process, like the
# interpreter's lock itself.
_attended: tuple[asyncio.AbstractEventLoop, int] | None = None


@contextlib.contextmanager
def attending(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Have threads yield to this loop, which runs in the calling thread, for a while."""
    global _attended  # noqa: PLW0603 - see above
    before, _attended = _attended, (loop, threading.get_ident())
    try:
        yield
    finally:
        _attended = before


def lower_priority() -> None:
    """Let the calling thread's work wait where the processor has other threads to run.

    One that holds the interpreter's lock and has to wait for a processor keeps the loop waiting
    too; but it waits for no other thread of this process, since those want the lock.
    """
    # Linux has a niceness for each thread; where it may not be set, all are alike.
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def yield_to_loop() -> None:
    """Wait, in any thread but the loop's, until the loop has turned once; a moment at most."""
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


def in_slices(items: Iterable[T], *, every: int = 16) -> Iterator[T]:
    """Yield ``items``, and yield_to_loop after each piece of some 2 ms.

    The time is looked at after so many of them. What one item takes must be well below a
    piece, and nothing may be held meanwhile that the loop needs.
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
