"""Why a check gives no result: nothing was found out about the site.

What the daemon itself lacks (descriptors, memory, threads) is not the site's fault.
"""

from __future__ import annotations

import errno
import os
import socket

from monitor.errors import MonitorError

__all__ = ["NoResultError", "OwnTroubleError", "own_trouble", "short_of_descriptors"]

_LACKING = {
    errno.EMFILE: "out of file descriptors",
    errno.ENFILE: "the system is out of file descriptors",
    errno.ENOMEM: "out of memory",
    errno.ENOBUFS: "out of memory for the network",
    # fork(2) says so, and nothing else that gets here.
    errno.EAGAIN: "out of processes",
}
# What a lookup of a name or reading certificates needs: files, and a socket.
_DESCRIPTORS = 4


class NoResultError(MonitorError):
    """A check gave no result."""


class OwnTroubleError(NoResultError):
    """The daemon lacks what the check needs; ``trouble`` says what."""

    def __init__(self, trouble: str) -> None:
        super().__init__(f"not checked: {trouble}")
        self.trouble = trouble


def own_trouble(error: BaseException) -> str | None:
    """Return what the daemon lacks, if that is why a check failed; else None."""
    if isinstance(error, OwnTroubleError):
        return error.trouble
    if isinstance(error, MemoryError):
        return _LACKING[errno.ENOMEM]
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return "out of threads"
    if isinstance(error, socket.gaierror):
        if error.errno == socket.EAI_MEMORY:
            return _LACKING[errno.ENOMEM]
        # The system's resolver hides it behind any of its own errors.
        return short_of_descriptors()
    return _LACKING.get(error.errno or 0) if isinstance(error, OSError) else None


def short_of_descriptors() -> str | None:
    """Return what is lacking if only a few descriptors more cannot be opened now; else None."""
    opened: list[int] = []
    try:
        while len(opened) < _DESCRIPTORS:
            opened.append(os.open("/", os.O_PATH | os.O_CLOEXEC))
    except OSError as error:
        return _LACKING.get(error.errno or 0)
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return None
