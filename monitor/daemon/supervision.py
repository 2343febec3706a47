"""Runs a part, and again after it failed, whatever it raised; keeps its health honest."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Any, Final

from monitor.backoff import Backoff
from monitor.errors import MonitorError
from monitor.metrics import Metric
from monitor.part import Health, Part, State

__all__ = ["RESTART_PAUSE_S", "SETTLED_S", "Supervisor", "asked_to_end", "first_cause"]

logger = logging.getLogger("monitor.daemon")

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
        self.restarts = 0

    async def run(self) -> None:
        """Run the part until cancelled."""
        loop, own = asyncio.get_running_loop(), asyncio.current_task()
        while True:
            began = time.monotonic()
            settled = loop.call_later(self._settled_s, self._settle)
            try:
                await self.part.run()
                problem = "ended"
            except BaseException as error:
                if asked_to_end(error, own):
                    raise
                problem = self._problem(error)
            finally:
                settled.cancel()
            if time.monotonic() - began > _BACKOFF_RESET_S:
                self._backoff.reset()
            delay = self._backoff.next_delay()
            self._failure = problem
            self.restarts += 1
            logger.error("%s %s; restarting it in %.1f s", self.part.name, problem, delay)
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
        try:
            return self.part.state()
        except Exception as error:  # noqa: BLE001 - others are shown all the same
            self._report("state", error)
            return State(Health.DEGRADED, f"its state is unknown: {type(error).__name__}")

    def metrics(self) -> Iterable[Metric]:
        """Return the metrics of the part, as far as it gives them."""
        found: list[Metric] = []
        try:
            found.extend(self.part.metrics())
        except Exception as error:  # noqa: BLE001 - others are shown all the same
            self._report("metrics", error)
        return found

    def _report(self, what: str, error: Exception) -> None:
        """Log a defect of a getter when it begins: it is called again and again."""
        defect = f"{what}: {type(error).__name__}"
        if defect != self._defect:
            self._defect = defect
            logger.error("%s: no %s", self.part.name, what, exc_info=error)


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
