"""One run of a job: the checks that make it, its attempts, and the result that it gives."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import msgspec

from monitor.errors import MonitorError
from monitor.locations import ALL_LOCATIONS
from monitor.messages import Phases, Result
from monitor.probes.beats import Beats
from monitor.probes.check import Attempt, Check, Outcome
from monitor.probes.checks import KINDS
from monitor.probes.degraded import judged
from monitor.probes.job import Job
from monitor.probes.matching import Matcher
from monitor.probes.network import Network
from monitor.probes.no_result import NoResultError, OwnTroubleError, own_trouble
from monitor.probes.schedule import Run

__all__ = ["Checks", "check_job", "result_of"]

logger = logging.getLogger("monitor.probes")

_HEARTBEAT = "heartbeat"
_RETRY_PAUSE_S = 1.0
_TIMES = ("response_time", "duration")
_DIGITS = 6


class Checks:
    """One check of each kind in use, and what they share."""

    def __init__(self, *, resolver_threads: int) -> None:
        self._network = Network(resolver_threads=resolver_threads)
        self._matcher = Matcher()
        self._checks: dict[str, Check[Any]] = {}
        self.beats = Beats()

    def prepare(self, job: Job) -> Attempt:
        """Return what makes one attempt at the job; raise MonitorError on any failure."""
        try:
            check = self._checks.get(job.kind)
            if check is None:
                check = KINDS[job.kind](network=self._network, matcher=self._matcher)
                check.beats = self.beats
                self._checks[job.kind] = check
            return check.prepare(job)
        except Exception as error:
            # The error's own text may show the job's secrets.
            logger.debug("%s cannot be prepared", job.title, exc_info=True)
            problem = f"cannot prepare its check: {type(error).__name__}"
            raise MonitorError(f"{job.title}: {problem}") from error

    @property
    def behind(self) -> bool:
        """Whether the loop cannot keep up with the checks that are open."""
        return self._network.behind

    def forget(self, job_id: int) -> None:
        """Forget what is known of a job."""
        self._matcher.forget(job_id)
        self.beats.forget_timer(job_id)

    async def close(self) -> None:
        """Close all checks and what they share."""
        self.beats.close()
        for check in self._checks.values():
            await check.close()
        await self._matcher.close()
        self._network.close()


async def check_job(job: Job, attempt: Attempt) -> tuple[Outcome, int]:
    """Check once, with the job's retries; return the last attempt's outcome and its number.

    Raises NoResultError for a heartbeat that has no result yet, and where the daemon itself lacks
    what the check needs.
    """
    number = 0
    while True:
        number += 1
        try:
            outcome = await attempt()
        except NoResultError:
            raise
        except Exception as error:
            trouble = own_trouble(error)
            if trouble is not None:
                raise OwnTroubleError(trouble) from None
            # Nothing is known that raises; most likely the site's answer does.
            logger.exception("%s: the check itself failed", job.title)
            text = f"bad-answer: the check failed on it with {type(error).__name__}"
            outcome = Outcome(up=False, duration=0.0, error=text)
        if outcome.up or number > job.retries:
            return judged(job, outcome, now=time.time()), number
        await asyncio.sleep(min(_RETRY_PAUSE_S, job.interval / 10))


def result_of(
    job: Job,
    run: Run,
    outcome: Outcome,
    *,
    url: str,
    checked_at: float,
    producer: int,
    attempt: int,
    location: str = "",
    quorum: int | None = None,
) -> Result:
    """Return the result of a job's run."""
    if location and job.kind == _HEARTBEAT:
        # A beat that comes in any location is a beat.
        quorum = ALL_LOCATIONS
    return Result(
        job_id=job.id,
        url=url,
        scheduled_at=run.scheduled_at,
        checked_at=checked_at,
        kind=job.kind,
        producer=producer,
        attempt=attempt,
        missed=run.missed,
        location=location,
        quorum=quorum,
        **_rounded(outcome),
    )


def _rounded(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome's fields, with times to the microsecond: finer digits mean nothing.

    In every message, row and answer they would take more room than all else that was measured.
    """
    fields = msgspec.structs.asdict(outcome)
    for name in _TIMES:
        if fields[name] is not None:
            fields[name] = round(fields[name], _DIGITS)
    fields["phases"] = Phases(
        *[round(spent, _DIGITS) for spent in msgspec.structs.astuple(outcome.phases)]
    )
    return fields
