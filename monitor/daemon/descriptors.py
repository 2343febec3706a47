"""The file descriptors of the process: a limit that fits the config, and a warning near it.

At the limit new connections fail: libuv, below uvloop, closes them without a word.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
from collections.abc import Iterable
from typing import Protocol

from monitor.log_limits import OutageLog

__all__ = ["Descriptors"]

logger = logging.getLogger("monitor.daemon")

# Descriptors of the process itself: log, loop, threads of libzmq, files in the state directory.
_OWN = 128
# With fewer left the log says so; the share of the limit is for large ones.
_LEAST_LEFT = 16
_LEAST_LEFT_SHARE = 0.02


class Using(Protocol):
    """What uses some: a part."""

    def descriptors(self) -> int:
        """Return how many it may use."""


class Descriptors:
    """Raises the soft limit of the process, and looks how many descriptors are left."""

    def __init__(self) -> None:
        self._log = OutageLog(
            logger,
            subject="file descriptors",
            outcome="new connections and files will fail; raise LimitNOFILE= or lower max_clients",
        )

    def raise_limit(self, parts: Iterable[Using]) -> None:
        """Raise the soft limit to what the config may need, as far as the hard limit allows."""
        wanted = _OWN + sum(part.descriptors() for part in parts)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY or soft >= wanted:
            return
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        if limit < wanted:
            logger.warning(
                "the hard limit of %d file descriptors is lower than the %d that the config may"
                " need: raise LimitNOFILE= or lower max_clients",
                limit,
                wanted,
            )

    def look(self) -> None:
        """Log if almost all descriptors are in use, and when there are enough again."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit == resource.RLIM_INFINITY:
            return
        if _lowest_free(limit) >= limit - max(_LEAST_LEFT, int(limit * _LEAST_LEFT_SHARE)):
            self._log.failed(f"almost all of {limit} are in use")
        else:
            self._log.recovered("there are enough again")


def _lowest_free(limit: int) -> int:
    """Return the number that the next descriptor gets: all below it are in use (open(2))."""
    try:
        free = os.open("/", os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        return limit if error.errno in (errno.EMFILE, errno.ENFILE) else 0
    os.close(free)
    return free
