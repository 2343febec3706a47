"""Whether a site that is checked from several locations is down. Pure.

Each location says whether the site is down there; a quorum of them decides. One that has been
silent for a while does not count. Fewer locations than the quorum open no outage, and end none that
all of them see.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from monitor.messages import Result

__all__ = ["ALL_LOCATIONS", "decisive", "heard", "is_down", "silent_after_s"]

ALL_LOCATIONS = 1000
"""A quorum that means all locations that count; no config can have more of them."""

# Runs of a job that may fail to come before its location is silent.
_RUNS = 3
_LEAST_SILENCE_S = 10.0


def silent_after_s(interval_s: float, slowest_s: float) -> float:
    """Return after how long without a result a location no longer counts.

    ``slowest_s`` is the longest time from the start of a check to its result.
    """
    return max(_RUNS * interval_s + slowest_s, _LEAST_SILENCE_S)


def heard(
    heard_at: Mapping[str, float], location: str, at: float, silent_s: float
) -> dict[str, float]:
    """Return the locations that count after a result from one, the one heard of last at the end.

    ``heard_at`` are those before, in that order, each with the time of its last result (s since
    epoch; infinite: one that counts from now on). One that was heard of since the location's last
    result is not silent, whatever the clocks of the two say.
    """
    names = list(heard_at)
    since = names[names.index(location) + 1 :] if location in heard_at else names
    # Their order says nothing of those that count from now on. Once a location was heard of twice,
    # they have had the time between.
    before = heard_at.get(location, math.inf)
    found = {
        name: before if seen == math.inf else seen
        for name, seen in heard_at.items()
        if seen >= at - silent_s or name in since
    }
    last = found.pop(location, at)
    found[location] = at if last == math.inf else max(at, last)
    return found


def is_down(down: int, locations: int, quorum: int | None) -> bool | None:
    """Return whether a site is down that is down in ``down`` of the locations that count.

    Without a quorum that is more than half of them. None: it is down in all of them, but they are
    fewer than the quorum, so it remains what it was.
    """
    if quorum is None:
        needed = locations // 2 + 1
    else:
        needed = locations if quorum >= ALL_LOCATIONS else quorum
    if down >= needed > 0:
        return True
    return None if 0 < down == locations else False


def decisive(
    results: Iterable[Result], *, silent_s: float = math.inf, was_down: bool = False
) -> Result | None:
    """Return which of the last results of a site, one per location, shows its state.

    That is the newest of those that say what the quorum says. None: too few locations count to say
    that it is down, and it was not. ``results`` must not be empty.
    """
    known = sorted(results, key=lambda result: result.checked_at)
    newest = known[-1]
    counted = [each for each in known if each.checked_at >= newest.checked_at - silent_s]
    down = [each for each in counted if not each.up]
    verdict = is_down(len(down), len(counted), newest.quorum)
    if verdict is None:
        return down[-1] if was_down else None
    return down[-1] if verdict else next(each for each in reversed(counted) if each.up)
