"""Steps of the daemon's life that are cut off: by a signal, or by the time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

__all__ = ["all_within", "begin", "outcome_of", "run_to_end", "unless_set", "within"]

logger = logging.getLogger("monitor.daemon")

T = TypeVar("T")
Exit = SystemExit | KeyboardInterrupt

# For a step that is cut off to notice.
_CUT_OFF_S = 0.1


async def unless_set(
    stopping: asyncio.Event, step: Coroutine[Any, Any, None], *, grace_s: float = 0.0
) -> bool:
    """Do a step; return False if it was cut off, ``grace_s`` after the event was set."""
    doing = asyncio.ensure_future(step)
    stop = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({doing, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done() and grace_s:
            await asyncio.wait({doing}, timeout=grace_s)
    finally:
        stop.cancel()
        cut_off = doing.cancel()
    if cut_off:
        await asyncio.wait({doing}, timeout=_CUT_OFF_S)
        return False
    doing.result()
    return True


async def all_within(
    steps: Sequence[tuple[str, Coroutine[Any, Any, None]]], what: str, limit_s: float
) -> None:
    """Do named steps at once; cut off those that take longer, and log them and those that fail."""
    if not steps:
        return
    running = {begin(step): name for name, step in steps}
    done, late = await asyncio.wait(running, timeout=limit_s)
    for task in late:
        task.cancel()
        logger.warning(
            "%s %s took longer than %.1f s; continuing without it", what, running[task], limit_s
        )
    for task in done:
        error = asyncio.CancelledError() if task.cancelled() else task.exception() or task.result()
        if error is not None:
            logger.error("%s %s failed: %s: %s", what, running[task], type(error).__name__, error)
    if late:
        await asyncio.wait(late, timeout=_CUT_OFF_S)


async def within(step: Coroutine[Any, Any, T], limit_s: float) -> T:
    """Do a step and return what it does; raises TimeoutError, even if it cannot be cut off."""
    doing = begin(step)
    try:
        await asyncio.wait({doing}, timeout=limit_s)
    finally:
        cut_off = doing.cancel()
    if cut_off:
        raise TimeoutError
    return outcome_of(doing)


def run_to_end(loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, T]) -> T:
    """Run a loop until ``main`` ends, and return what it does.

    SystemExit and KeyboardInterrupt, raised in any task or callback, would end the loop. They reach
    who waits for the task, like any other exception.
    """
    doing = loop.create_task(main, name="daemon")
    while True:
        try:
            return loop.run_until_complete(doing)
        except (SystemExit, KeyboardInterrupt) as error:
            if doing.done():
                return doing.result()
            logger.error("%s in a task or callback; continuing", type(error).__name__)


def begin(step: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T | Exit]:
    """Do a step in a task; SystemExit and the like, which would end the loop, are its results."""

    async def do() -> T | Exit:
        try:
            return await step
        except (SystemExit, KeyboardInterrupt) as error:
            return error

    return asyncio.create_task(do(), name=name)


def outcome_of(done: asyncio.Task[T | Exit]) -> T:
    """Return what a step has done that :func:`begin` began, or raise what it raised."""
    found = done.result()
    if isinstance(found, SystemExit | KeyboardInterrupt):
        raise found
    return found
