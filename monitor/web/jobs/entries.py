"""A job as the API and the page show it."""

from __future__ import annotations

from typing import Literal

import msgspec

from monitor.messages import Result

__all__ = ["JobEntry", "JobState"]

JobState = Literal["up", "down", "unknown", "stopped", "inactive"]
"""``unknown``: no result yet, a job that it depends on is down, or too few locations say that it
is down; ``stopped``: by hand."""


class JobEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A job and its state; ``since`` is unknown if the state is older than the look back.

    The state is a JobState; while job N is down, that of each job that depends on it is
    ``unknown: depends on N``. ``stopped_until`` is when a stopped job starts by itself. Where all
    locations that report find a site down, but they are fewer than their quorum and it was not
    down before, it is ``unknown: down in 1 location, the quorum is 2``.

    A site that is checked from several locations is down where a quorum of them says so: ``last``
    is the newest result that agrees with the state, ``locations`` has the last result of each.
    """

    id: int
    name: str
    kind: str
    url: str
    method: str
    interval: float
    timeout: float
    active: bool
    tags: list[str]
    depends_on: list[int]
    state: str
    since: float | None
    next_run: float | None
    last: Result | None
    locations: list[Result] = []
    stopped_until: float | None = None
