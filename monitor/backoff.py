"""Delays between retries, so that a server that comes back is not overloaded.

Libraries for this (tenacity, backoff, stamina) wrap a function and sleep themselves. The loops of
the daemon wait for events instead, and reset the delay in the middle of their work.
"""

from __future__ import annotations

import random

__all__ = ["Backoff", "jittered"]


class Backoff:
    """Delays that double from ``first_s`` to ``longest_s``, each with jitter.

    The caller waits, and calls :meth:`reset` after a success.
    """

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._limit_s = first_s

    def next_delay(self) -> float:
        """Return the next delay in s."""
        limit_s = self._limit_s
        self._limit_s = min(limit_s * 2, self._longest_s)
        return jittered(limit_s)

    def reset(self) -> None:
        """Start again with ``first_s``."""
        self._limit_s = self._first_s


def jittered(limit_s: float) -> float:
    """Return a random delay between half of ``limit_s`` and all of it.

    This is the "equal jitter" of M. Brooker, Exponential Backoff And Jitter:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    Unlike full jitter, it is never close to zero.
    """
    return random.uniform(limit_s / 2, limit_s)  # noqa: S311 - not a secret
