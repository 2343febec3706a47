"""Steps of the daemon's life that are cut off: by a signal, or by the time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any

__all__ = ["all_within", "unless_set"]

logger = logging.getLogger("monitor.daemon")

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
    running = {asyncio.ensure_future(_outcome(step)): name for name, step in steps}
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


async def _outcome(step: Coroutine[Any, Any, None]) -> BaseException | None:
    """Do a step; return an error that would end the loop if a task raised it."""
    try:
        await step
    except (SystemExit, KeyboardInterrupt) as error:
        return error
    return None
