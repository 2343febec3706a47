"""Signals, taken by a thread that waits for nothing else.

The loop, or what it waits for, may hang: a disk, a name server, a part. A signal is taken all the
same, and the process ends.

============== ===============================================================
SIGTERM SIGINT stop in order, within a limit; a second one ends the process
SIGHUP         reload
SIGUSR1        open the log file again
SIGUSR2 SIGIO  nothing but a line in the log: they may have a meaning for other
SIGPWR         daemons, and would end this one without a word
============== ===============================================================

Others have their usual effect. Those of timers do so because child processes, which inherit what is
blocked, end themselves with them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monitor.daemon.logfile import DaemonLog

__all__ = ["Signals", "hold_signals"]

logger = logging.getLogger("monitor.daemon")

_IGNORED = frozenset({signal.SIGUSR2, signal.SIGIO, signal.SIGPWR})
_HELD = frozenset({signal.SIGHUP, signal.SIGUSR1}) | _IGNORED
_TAKEN = frozenset({signal.SIGTERM, signal.SIGINT}) | _HELD
# The steps of an orderly end have limits of their own, which are shorter.
_END_S = 6.0
# For the last lines of the log, where the process ends at once.
_LAST_LINES_S = 0.2


def hold_signals() -> None:
    """Let SIGHUP and the like wait until the daemon takes them: they would end its start."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)


class Signals:
    """Takes the process's signals while it is open; no other thread may be running before.

    Threads and child processes that are started meanwhile inherit that these signals are blocked.
    """

    def __init__(self, log: DaemonLog) -> None:
        self._log = log
        # How the process exits where it has to be ended.
        self.status = 1
        self._stops = 0
        self._closed = False
        self._before: set[int | signal.Signals] = set()
        self._thread: threading.Thread | None = None
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Signals:
        self._before = set(signal.pthread_sigmask(signal.SIG_BLOCK, _TAKEN))
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._thread is not None and self._thread.ident is not None:
            signal.pthread_kill(self._thread.ident, signal.SIGUSR1)
            self._thread.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def attend(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        stop: Callable[[str], None],
        reload: Callable[[], None],
    ) -> None:
        """Begin to take signals; both are called in the loop, ``stop`` with the signal's name."""
        self._thread = threading.Thread(
            target=self._take, args=(loop, stop, reload), name="signals", daemon=True
        )
        self._thread.start()

    def limit_the_end(self) -> None:
        """End the process, by force, unless it has ended within some seconds from now."""
        if self._timer is None and not self._closed:
            self._timer = threading.Timer(_END_S, self._end_late)
            self._timer.daemon = True
            self._timer.start()

    def _take(
        self,
        loop: asyncio.AbstractEventLoop,
        stop: Callable[[str], None],
        reload: Callable[[], None],
    ) -> None:
        while True:
            number = signal.sigwait(_TAKEN)
            if self._closed:
                return
            # The loop may be closed already.
            with contextlib.suppress(RuntimeError):
                if number == signal.SIGUSR1:
                    self._log.reopen()
                elif number in _IGNORED:
                    logger.warning("%s has no meaning here", signal.Signals(number).name)
                elif number == signal.SIGHUP:
                    loop.call_soon_threadsafe(reload)
                else:
                    self._stops += 1
                    if self._stops > 1:
                        self._end("stopping at once: a second signal", status=1)
                    self.limit_the_end()
                    loop.call_soon_threadsafe(stop, signal.Signals(number).name)

    def _end_late(self) -> None:
        self._end(f"stopping at once: the end took {_END_S:g} s", status=self.status)

    def _end(self, why: str, *, status: int) -> None:
        # Once the log has stopped, the line goes to stderr at once, which may hang.
        last = threading.Thread(target=self._say_last, args=(why,), daemon=True)
        last.start()
        last.join(2 * _LAST_LINES_S)
        os._exit(status)

    def _say_last(self, why: str) -> None:
        logger.warning("%s", why)
        self._log.stop(limit_s=_LAST_LINES_S)
