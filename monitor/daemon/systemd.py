"""Notifies systemd: readiness, reloading, status, watchdog.

Source: sd_notify(3), systemd.service(5). Without NOTIFY_SOCKET every call does nothing.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping

import sdnotify

__all__ = ["ServiceManager", "watchdog_interval"]

logger = logging.getLogger("monitor.daemon")


def watchdog_interval(environ: Mapping[str, str]) -> float | None:
    """Return the interval of WATCHDOG=1 in s: a third of WATCHDOG_USEC, if set for this process."""
    pid = environ.get("WATCHDOG_PID")
    if pid and pid != str(os.getpid()):
        return None
    try:
        usec = int(environ.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    return usec / 3e6 if usec > 0 else None


class ServiceManager:
    """The socket to systemd, if there is one."""

    def __init__(self) -> None:
        # Without systemd, sdnotify would leak its socket.
        has_socket = bool(os.environ.get("NOTIFY_SOCKET"))
        self._notifier = sdnotify.SystemdNotifier() if has_socket else None
        if self._notifier is not None and self._notifier.socket is not None:
            # A service manager that hangs must not block the loop.
            self._notifier.socket.setblocking(False)
        self._status = ""

    def _notify(self, state: str) -> None:
        # sdnotify ignores errors: the daemon runs without its service manager, too.
        if self._notifier is not None:
            self._notifier.notify(state)

    def ready(self) -> None:
        """Notify that the daemon serves (again)."""
        self._notify("READY=1")

    def reloading(self) -> None:
        """Notify the start of a reload; ready() must follow, even after a failure."""
        # notify-reload matches the notification with its signal by this time.
        self._notify(
            f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"
        )

    def stopping(self) -> None:
        """Notify the start of the shutdown."""
        self._notify("STOPPING=1")

    def status(self, text: str) -> None:
        """Show ``text`` in systemctl status, if it changed."""
        text = text.replace("\n", " ")
        if text != self._status:
            self._status = text
            self._notify(f"STATUS={text}")

    def watchdog(self) -> None:
        """Notify that the loop is alive."""
        self._notify("WATCHDOG=1")

    def close(self) -> None:
        """Close the socket, which sdnotify never does."""
        notifier, self._notifier = self._notifier, None
        if notifier is not None and notifier.socket is not None:
            notifier.socket.close()
