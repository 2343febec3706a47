"""The states of rules for sites that are checked from several locations. Pure.

A rule counts the results of each location separately. A quorum of the locations decides whether the
site is in trouble; a location that is silent does not count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from monitor.alerts.incidents import LocationState, State
from monitor.locations import ALL_LOCATIONS, heard, is_down

__all__ = ["LOCATIONS", "Locations", "counted", "known_locations", "with_location"]

LOCATIONS = "\n"
"""The rule of the states that name the locations of a job; no rule can be called so."""


@dataclass(frozen=True, slots=True)
class Locations:
    """The locations of a job that count now, and when each was heard of last (s since epoch).

    ``joined`` says that the last result is of one that did not count before it. ``few_since`` is
    since when they are fewer than the ``quorum``; ``too_few`` says that this lasts, so that no
    rule can find the job down.
    """

    heard_at: Mapping[str, float]
    joined: bool = False
    quorum: int = 0
    few_since: float | None = None
    too_few: bool = False

    def heard(self, location: str, at: float, silent_s: float, quorum: int | None) -> Locations:
        """Return them after a result from a location, without those that are silent since."""
        found = heard(self.heard_at, location, at, silent_s)
        joined = location not in self.heard_at
        if quorum is None or not len(found) < quorum < ALL_LOCATIONS:
            return Locations(found, joined)
        since = at if self.few_since is None else self.few_since
        # After the first start, the others may be about to report.
        return Locations(found, joined, quorum, since, at - since > silent_s)

    def is_down(self, bad: int, quorum: int | None) -> bool | None:
        """Return whether this many of them are a quorum; None: it remains what it was."""
        return is_down(bad, len(self.heard_at), quorum)

    def state(self) -> State:
        """Return their names as a state."""
        return State(watch="", locations=dict.fromkeys(sorted(self.heard_at), LocationState()))


def known_locations(state: State) -> Locations:
    """Return the locations of a state that was stored; they count from the next result on."""
    return Locations(dict.fromkeys(state.locations, math.inf))


def counted(
    before: LocationState | None, *, good: bool, failures: int, successes: int
) -> LocationState | None:
    """Return the state of a rule in a location after a result; None if all is well."""
    known = LocationState() if before is None else before
    if not good:
        count = known.failures + 1
        return LocationState(failures=count, bad=known.bad or count >= failures)
    if not known.bad or known.successes + 1 >= successes:
        return None
    return msgspec.structs.replace(known, successes=known.successes + 1)


def with_location(
    state: State, location: str, after: LocationState | None, heard: Iterable[str]
) -> dict[str, LocationState]:
    """Return the locations of a state, one of them updated, without those not in ``heard``."""
    found = {name: each for name, each in state.locations.items() if name in heard}
    found.pop(location, None)
    if after is not None:
        found[location] = after
    return found
