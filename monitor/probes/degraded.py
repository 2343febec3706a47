"""Whether an up outcome is degraded; pure."""

from __future__ import annotations

import msgspec

from monitor.probes.check import Outcome
from monitor.probes.job import Job
from monitor.probes.tls import TlsKeys

__all__ = ["judged"]

_DAY_S = 86400.0


def judged(job: Job, outcome: Outcome, *, now: float) -> Outcome:
    """Return the outcome, degraded if it is up and not as good as the job asks for.

    That is a response that takes too long, or a certificate with too few days left at ``now``, in
    epoch s.
    """
    if not outcome.up or outcome.degraded:
        return outcome
    slow = (
        job.degraded_after is not None
        and outcome.response_time is not None
        and outcome.response_time >= job.degraded_after
    )
    days = job.certificate_days if isinstance(job, TlsKeys) else None
    expires_at = outcome.certificate_expires_at
    old = days is not None and expires_at is not None and expires_at - now < days * _DAY_S
    return msgspec.structs.replace(outcome, degraded=True) if slow or old else outcome
