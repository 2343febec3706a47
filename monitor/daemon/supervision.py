"""Starts and runs a part, again after it failed, whatever it raised; keeps its health honest."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from monitor.backoff import Backoff
from monitor.daemon.steps import Exit, begin, outcome_of
from monitor.errors import MonitorError
from monitor.libraries import needed_by
from monitor.metrics import Metric
from monitor.part import Health, Part, State
from monitor.sqlite.file import OpenFile

__all__ = ["RESTART_PAUSE_S", "SETTLED_S", "Supervisor", "asked_to_end", "first_cause"]

logger = logging.getLogger("monitor.daemon")

T = TypeVar("T")

RESTART_PAUSE_S: Final = (1.0, 30.0)
# A part that was restarted works again once it has run for this long.
SETTLED_S: Final = 5.0
_BACKOFF_RESET_S: Final = 60.0


class Supervisor:
    """One part, and what is wrong with it.

    ``pause_s`` are the first and the longest pause before a restart. After one, the part counts
    as working when it has run for ``settled_s``.
    """

    def __init__(
        self,
        part: Part,
        *,
        pause_s: tuple[float, float] = RESTART_PAUSE_S,
        settled_s: float = SETTLED_S,
    ) -> None:
        self.part = part
        self._backoff = Backoff(*pause_s)
        self._settled_s = settled_s
        self._failure = ""
        self._defect = ""
        self._starting: asyncio.Task[Exit | None] | None = None
        self.started = False
        """Whether the part has started, so that it can be run, reloaded and drained."""
        self.restarts = 0

    async def start(self, *, limit_s: float) -> None:
        """Start the part; raises its MonitorError.

        If it takes longer than ``limit_s``, or fails otherwise, :meth:`run` cares for it.
        """
        self._starting = begin(self._start(), f"start:{self.part.name}")
        try:
            await asyncio.wait({self._starting}, timeout=limit_s)
        except asyncio.CancelledError:
            self._starting.cancel()
            raise
        if not self._starting.done():
            self._failure = f"not started within {limit_s:g} s"
            logger.error("%s has not started within %g s; continuing", self.part.name, limit_s)
            return
        try:
            outcome_of(self._starting)
        except MonitorError:
            raise
        except BaseException as error:  # noqa: BLE001 - the part's own
            self._failure = self._problem(error)
            logger.error("%s has not started; the others continue", self.part.name)

    async def _start(self) -> None:
        with needed_by(self.part.name):
            await self.part.start()
        self.started = True

    async def _ensure_started(self) -> None:
        if self.started:
            return
        task, self._starting = self._starting, None
        if task is None or task.done():
            # It may have left something open.
            await self.part.close()
            await self._start()
        else:
            await task
            outcome_of(task)

    async def run(self) -> None:
        """Run the part until cancelled."""
        loop, own = asyncio.get_running_loop(), asyncio.current_task()
        if not self.started and self._starting is not None and self._starting.done():
            await self._pause()
        while True:
            began = time.monotonic()
            settled: asyncio.TimerHandle | None = None
            try:
                await self._ensure_started()
                settled = loop.call_later(self._settled_s, self._settle)
                await self.part.run()
                problem = "ended"
            except BaseException as error:
                if asked_to_end(error, own):
                    raise
                problem = self._problem(error)
            finally:
                if settled is not None:
                    settled.cancel()
            if time.monotonic() - began > _BACKOFF_RESET_S:
                self._backoff.reset()
            self._failure = problem
            await self._pause()

    async def _pause(self) -> None:
        delay = self._backoff.next_delay()
        self.restarts += 1
        logger.error("%s %s; restarting it in %.1f s", self.part.name, self._failure, delay)
        await asyncio.sleep(delay)

    def _settle(self) -> None:
        self._failure = ""

    def _problem(self, error: BaseException) -> str:
        cause = first_cause(error)
        if isinstance(cause, MonitorError):
            return str(cause)
        logger.error("%s failed", self.part.name, exc_info=cause)
        return f"failed: {type(cause).__name__}"

    def state(self) -> State:
        """Return the state of the part: its own, if it works."""
        if self._failure:
            return State(Health.DEGRADED, self._failure)
        return self._asked("state", self.part.state, _unknown_state)

    def metrics(self) -> Iterable[Metric]:
        """Return the metrics of the part, as far as it gives them."""
        found: list[Metric] = []
        self._asked("metrics", lambda: found.extend(self.part.metrics()), lambda _: None)
        return found

    def open_files(self) -> Sequence[OpenFile]:
        """Return the part's open files."""
        return self._asked("open files", self.part.open_files, lambda _: ())

    def descriptors(self) -> int:
        """Return the maximum number of file descriptors of the part."""
        return self._asked("descriptors", self.part.descriptors, lambda _: 0)

    def _asked(self, what: str, ask: Callable[[], T], otherwise: Callable[[BaseException], T]) -> T:
        """Return what the part says, or if it fails, something else: others matter all the same."""
        try:
            return ask()
        except BaseException as error:  # noqa: BLE001 - reported
            self._report(what, error)
            return otherwise(error)

    def _report(self, what: str, error: BaseException) -> None:
        """Log a defect of a getter when it begins: it is called again and again."""
        defect = f"{what}: {type(error).__name__}"
        if defect != self._defect:
            self._defect = defect
            logger.error("%s: no %s", self.part.name, what, exc_info=error)


def _unknown_state(error: BaseException) -> State:
    return State(Health.DEGRADED, f"its state is unknown: {type(error).__name__}")


def asked_to_end(error: BaseException, task: asyncio.Task[Any] | None) -> bool:
    """Return whether an error in ``task`` means that it is being cancelled or closed.

    Otherwise a part raised it, for which something in it may have been cancelled.
    """
    if isinstance(error, asyncio.CancelledError):
        return task is None or task.cancelling() > 0
    # What closes it runs outside of it.
    return isinstance(error, GeneratorExit) and asyncio.current_task() is not task


def first_cause(error: BaseException) -> BaseException:
    """Return the first error of a task group, however deep it is nested."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
