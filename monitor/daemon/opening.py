"""Opens the services that parts share; one whose disk hangs does not hold up the parts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from monitor.daemon.assembly import Service
from monitor.daemon.steps import Exit, begin, outcome_of

__all__ = ["Opening"]

logger = logging.getLogger("monitor.daemon")

_LEAST_S = 1.0


class Opening:
    """Starts services; ``failed`` gets the error of one that fails after its time was over."""

    def __init__(self, failed: Callable[[BaseException], None]) -> None:
        self._failed = failed
        self._late: set[asyncio.Task[Exit | None]] = set()

    async def open(self, services: Sequence[Service], *, limit_s: float) -> None:
        """Start services, one after the other; raises the error of one.

        After ``limit_s`` in all, those that have not started go on without being waited for.
        """
        until = time.monotonic() + limit_s
        for service in services:
            name = type(service).__name__
            opening = begin(service.start(), f"open:{name}")
            left_s = max(_LEAST_S, until - time.monotonic())
            try:
                await asyncio.wait({opening}, timeout=left_s)
            except asyncio.CancelledError:
                opening.cancel()
                raise
            if opening.done():
                outcome_of(opening)
                continue
            logger.error("%s has not opened within %.0f s; continuing without it", name, left_s)
            self._late.add(opening)
            opening.add_done_callback(self._done)

    def _done(self, opening: asyncio.Task[Exit | None]) -> None:
        self._late.discard(opening)
        if not opening.cancelled():
            error = opening.exception() or opening.result()
            if error is not None:
                self._failed(error)

    def cancel(self) -> None:
        """Wait for none any more."""
        for opening in self._late:
            opening.cancel()
