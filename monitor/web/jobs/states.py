"""The states of jobs: the last result of each, and since when it is up or down; no I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from operator import attrgetter

from monitor.locations import decisive, heard
from monitor.messages import Result
from monitor.web.jobs.history import Last

__all__ = ["JobStates"]

_CHECKED_AT = attrgetter("checked_at")
# A location that has been silent for this long is no longer shown.
_FORGOTTEN_S = 86400.0


class JobStates:
    """What is known about each job, from its results and from the database.

    With ``all_seen`` every result is passed to :meth:`take`: then the first known result is the
    job's first since the start; otherwise it may be any result.
    """

    def __init__(self, *, all_seen: bool) -> None:
        self._all_seen = all_seen
        self._last: dict[int, Result] = {}
        self._since: dict[int, float | None] = {}
        # Jobs that are known to have been in the other state before.
        self._turned: set[int] = set()
        # The last result of each location, of jobs that are checked from some.
        self._located: dict[int, dict[str, Result]] = {}
        # Those of them that count, as :func:`heard` has them.
        self._heard: dict[int, dict[str, float]] = {}
        # Jobs that are down in all locations that count, which are fewer than their quorum.
        self._undecided: dict[int, str] = {}
        self._restored: set[int] = set()
        # The first result of jobs that are down, whose past was not restored yet.
        self._first_down: dict[int, Result] = {}

    def last(self, job_id: int) -> Result | None:
        """Return the last result; of several locations, the last that agrees with the state."""
        return self._last.get(job_id)

    def located(self, job_id: int) -> list[Result]:
        """Return the last result of each location, in the order of their names."""
        return [result for _, result in sorted(self._located.get(job_id, {}).items())]

    def since(self, job_id: int) -> float | None:
        """Return since when (epoch s) the job is up or down; None if that is not known."""
        return self._since.get(job_id)

    def undecided(self, job_id: int) -> str | None:
        """Return why the locations that count are too few to say that the job is down, if so."""
        return self._undecided.get(job_id)

    def has_turned(self, job_id: int) -> bool:
        """Return whether the job is known to have been down before it was up, or up before."""
        return job_id in self._turned

    def take(self, result: Result, *, silent_s: float = math.inf) -> bool:
        """Take a new result; return whether the job went up or down.

        A location without a result for ``silent_s`` does not count. A result that is not newer than
        the last one of its location changes nothing.
        """
        job_id = result.job_id
        if result.location or job_id in self._located:
            shown = self._located_result(result, silent_s)
            if shown is None:
                return False
            result = shown
        before = self._last.get(job_id)
        turned = False
        if before is None or before.up != result.up:
            # The first known result of another daemon's job may not be its first.
            known = before is not None or self._all_seen or job_id in self._restored
            self._since[job_id] = result.scheduled_at if known else None
            if before is not None:
                turned = True
                self._turned.add(job_id)
                self._first_down.pop(job_id, None)
            elif not result.up:
                # A new job whose first result is down went down, too; the past says if it is new.
                turned = job_id in self._restored
                if not turned:
                    self._first_down[job_id] = result
        self._last[job_id] = result
        return turned

    def _located_result(self, result: Result, silent_s: float) -> Result | None:
        """Return the result that shows the job's state now; None: this one is not new, or alone."""
        job_id = result.job_id
        known = self._located.get(job_id)
        if known is None:
            known = self._located[job_id] = {}
            before = self._last.get(job_id)
            if before is not None:
                known[before.location] = before
                self._heard[job_id] = {before.location: before.checked_at}
        last = known.get(result.location)
        if last is not None and last.scheduled_at >= result.scheduled_at:
            return None
        known[result.location] = result
        at = result.checked_at
        counting = heard(self._heard.get(job_id, {}), result.location, at, silent_s)
        self._heard[job_id] = counting
        for name, each in list(known.items()):
            if name not in counting and each.checked_at < at - _FORGOTTEN_S:
                del known[name]
        return self._decided(job_id, was=self._last.get(job_id))

    def _decided(self, job_id: int, was: Result | None) -> Result | None:
        """Return which result of the locations that count shows the state, after another one."""
        counting = [self._located[job_id][name] for name in self._heard[job_id]]
        found = decisive(counting, was_down=was is not None and not was.up)
        if found is None:
            quorum = max(counting, key=_CHECKED_AT).quorum
            where = f"{len(counting)} location{'' if len(counting) == 1 else 's'}"
            self._undecided[job_id] = f"down in {where}, the quorum is {quorum}"
        else:
            self._undecided.pop(job_id, None)
        return found

    def missing(self, job_ids: Iterable[int]) -> Sequence[int]:
        """Return the jobs whose past was not restored yet, or of which nothing is known.

        When the database was read, results may have been on their way into it, and a stopped job
        gets no others.
        """
        return [
            job_id
            for job_id in job_ids
            if job_id not in self._restored
            or (job_id not in self._last and job_id not in self._undecided)
        ]

    def restore(self, job_id: int, last: Last | None) -> Result | None:
        """Take what the database has about a job.

        Return the result with which the job went down if :meth:`take` could not know that it did.
        """
        self._restored.add(job_id)
        first_down = self._first_down.pop(job_id, None)
        if last is None:
            return first_down
        if last.turned:
            self._turned.add(job_id)
        if last.located:
            located = self._located.setdefault(job_id, {})
            for result in last.located:
                located.setdefault(result.location, result)
            since = self._heard.get(job_id, {})
            past = {each.location: each.checked_at for each in last.located}
            # The one heard of last comes last.
            past = {name: at for name, at in past.items() if name not in since}
            self._heard[job_id] = past | since
        known = self._last.get(job_id)
        if last.located:
            found = self._decided(job_id, was=known or last.result)
            if known is not None and found is not None:
                known = self._last[job_id] = found
        if last.result is None:
            return first_down
        if known is None:
            self._last[job_id], self._since[job_id] = last.result, last.since
        elif known.up == last.result.up:  # it has been checked meanwhile
            self._since[job_id] = last.since
        if first_down is None or self._last[job_id].up:  # up: for other locations
            return None
        # The database may have the first result, too.
        began = last.since is not None and last.since >= first_down.scheduled_at
        return first_down if last.result.up or began else None

    def forget(self, job_id: int) -> None:
        """Forget a job that no longer exists, or that checks something else now."""
        self._last.pop(job_id, None)
        self._since.pop(job_id, None)
        self._located.pop(job_id, None)
        self._heard.pop(job_id, None)
        self._undecided.pop(job_id, None)
        self._turned.discard(job_id)
        self._restored.discard(job_id)
        self._first_down.pop(job_id, None)
