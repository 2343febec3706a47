"""The last changes: jobs that went up or down, parts whose health changed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from monitor.part import Health, State

__all__ = ["Change", "Changes", "PartEntry"]

_KEPT = 200


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change; ``to`` is the new state, ``detail`` the reason, if it is known."""

    time: float
    kind: Literal["job", "part"]
    name: str
    job_id: int | None = None
    to: str
    detail: str = ""


class PartEntry(msgspec.Struct, frozen=True, kw_only=True):
    """The health of a part, and since when."""

    health: str
    summary: str
    since: float


class Changes:
    """The last 200 changes, oldest first."""

    def __init__(self) -> None:
        self.total = 0
        self._kept: deque[Change] = deque(maxlen=_KEPT)
        self._parts: dict[str, PartEntry] = {}

    def add(self, change: Change) -> None:
        """Add a change."""
        self._kept.append(change)
        self.total += 1

    def since(self, total: int) -> list[Change]:
        """Return the changes after the first ``total``, as far as they are kept."""
        missing = min(self.total - total, len(self._kept))
        return list(self._kept)[len(self._kept) - missing :] if missing > 0 else []

    def parts(
        self, states: Mapping[str, State], *, now: float | None = None
    ) -> Mapping[str, PartEntry]:
        """Take the states of all parts, add what changed, and return since when each holds."""
        now = time.time() if now is None else now
        for name, state in states.items():
            known = self._parts.get(name)
            since = now
            if known is not None and known.health == state.health:
                since = known.since
            elif known is not None and known.health != Health.STARTING:
                self.add(
                    Change(
                        time=now,
                        kind="part",
                        name=name,
                        to=state.health.value,
                        detail=state.summary,
                    )
                )
            self._parts[name] = PartEntry(
                health=state.health.value, summary=state.summary, since=since
            )
        return self._parts

    def with_older(self, older: Iterable[Change]) -> list[Change]:
        """Return the kept changes and other, ``older`` ones, oldest first, at most 200."""
        known = {(change.kind, change.name, change.time) for change in self._kept}
        more = [each for each in older if (each.kind, each.name, each.time) not in known]
        return sorted([*more, *self._kept], key=lambda change: change.time)[-_KEPT:]
