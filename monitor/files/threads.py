"""Calls that may never return, such as to a network file system that hangs.

Each runs in a daemon thread of its own. Where nobody waits for it any more, the thread is
abandoned: it ends with its call, or with the process. The threads of a pool would hold up the end
of the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import ParamSpec, TypeVar

__all__ = ["any_aside", "begin_aside", "call_aside", "late_threads"]

P = ParamSpec("P")
T = TypeVar("T")

_NAME = "aside"


def begin_aside(function: Callable[[], T]) -> Future[T]:
    """Call ``function`` in a thread of its own and return its future."""
    outcome: Future[T] = Future()

    def call() -> None:
        # A future that was cancelled takes no outcome.
        with contextlib.suppress(InvalidStateError):
            try:
                outcome.set_result(function())
            except InvalidStateError:
                raise
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                outcome.set_exception(error)

    threading.Thread(target=call, name=_NAME, daemon=True).start()
    return outcome


def any_aside() -> bool:
    """Return whether such a call is still under way."""
    return any(thread.name == _NAME for thread in threading.enumerate())


def late_threads(limit_s: float) -> list[str]:
    """Return the names of threads that do not end within a time, and hold up the process's end."""
    until = time.monotonic() + limit_s
    late = []
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                late.append(thread.name)
    return late


async def call_aside(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what ``function`` returns, from a thread of its own; cancelling abandons it."""
    return await asyncio.wrap_future(begin_aside(lambda: function(*args, **kwargs)))
