"""When a delivery is tried again. Pure."""

from __future__ import annotations

from monitor.backoff import jittered

__all__ = ["GIVE_UP_S", "LONGEST_S", "next_attempt"]

GIVE_UP_S = 86_400.0
"""A delivery is tried for a day (s)."""

LONGEST_S = 600.0
"""The longest delay between two attempts that no receiver asked for (s)."""

_FIRST_S = 2.0
# More than this a receiver cannot ask for with Retry-After.
_MOST_ASKED_S = 3600.0


def next_attempt(
    *, attempts: int, created_at: float, now: float, retry_after_s: float | None = None
) -> float | None:
    """Return when to try again after ``attempts`` failed ones (s since the epoch), or None.

    The delays double from 2 s to 10 min. The last attempt is a day after the first.
    """
    # A clock that was set back must not prolong the day without end.
    age = max(0.0, now - created_at)
    if age >= GIVE_UP_S:
        return None
    delay = jittered(min(_FIRST_S * 2 ** min(attempts - 1, 20), LONGEST_S))
    if retry_after_s is not None:
        delay = max(delay, min(retry_after_s, _MOST_ASKED_S))
    return min(now + delay, max(created_at + GIVE_UP_S, now + _FIRST_S))
