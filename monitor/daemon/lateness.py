"""How late the loop is, and what held it.

A task of the loop beats ten times a second; how late each beat comes is a metric. A thread looks
whether it beats, and while it does not, it finds out from the loop's stack what holds it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable
from types import FrameType

from monitor.log_limits import RateLimitedLog
from monitor.metrics import Histogram, Metric
from monitor.transport.fair import Turns

__all__ = ["Lateness", "held_by"]

logger = logging.getLogger("monitor.daemon")

_BEAT_S = 0.1
# Past this the log names what holds the loop.
_HELD_S = 1.0
_BOUNDS_S = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0)
# Beats in the gauge of the latest one: about a minute.
_REMEMBERED = 600


class Lateness:
    """Measures one loop, while :meth:`run` runs in it."""

    def __init__(self) -> None:
        self._histogram = Histogram(
            "loop_lateness_seconds", "How late the event loop comes to what is due", _BOUNDS_S
        )
        self._recent: deque[float] = deque(maxlen=_REMEMBERED)
        self._log = RateLimitedLog(logger)
        self._beat_at = 0.0
        self._ended = threading.Event()

    async def run(self) -> None:
        """Beat until cancelled."""
        loop = asyncio.get_running_loop()
        self._beat_at = time.monotonic()
        watch = threading.Thread(
            target=self._watch,
            args=(threading.get_ident(), Turns.of(loop)),
            name="loop-watch",
            daemon=True,
        )
        watch.start()
        try:
            while True:
                due = time.monotonic() + _BEAT_S
                await asyncio.sleep(_BEAT_S)
                self._beat_at = time.monotonic()
                late = max(0.0, self._beat_at - due)
                self._histogram.observe(late)
                self._recent.append(late)
        finally:
            self._ended.set()

    def metrics(self) -> Iterable[Metric]:
        """Return the distribution, and the worst of the last minute."""
        yield self._histogram.metric()
        yield Metric(
            "loop_lateness_max_seconds",
            "gauge",
            "How late the event loop was at most in the last minute",
            [({}, max(self._recent, default=0.0))],
        )

    def _watch(self, thread: int, turns: Turns) -> None:
        named = 0.0
        while not self._ended.wait(_HELD_S / 4):
            beat_at = self._beat_at
            if time.monotonic() - beat_at < _HELD_S + _BEAT_S or named == beat_at:
                continue
            holder = held_by(sys._current_frames().get(thread))
            if holder:
                named = beat_at
                serving = turns.serving
                peer = "" if serving is None else f", serving {serving.peer}"
                self._log.warning(
                    "held", "the event loop is held for over %g s by %s%s", _HELD_S, holder, peer
                )


def held_by(frame: FrameType | None) -> str:
    """Return the innermost function of the daemon on a stack; empty if the loop itself runs."""
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith("monitor.") and module != "monitor.daemon.lateness":
            name = frame.f_code.co_qualname
            return "" if name == "run_daemon" else f"{module}.{name}"
        frame = frame.f_back
    return ""
