"""A result as probes make them: one in fifty is down, and nothing is random."""

from __future__ import annotations

from monitor.messages import Phases, Result

__all__ = ["example_result"]


def example_result(number: int, *, job: int, scheduled_at: float) -> Result:
    """Return a result of a job; ``number`` decides what it says."""
    up = number % 50 != 0
    return Result(
        job_id=job,
        url=f"https://www.example-{job}.org/",
        scheduled_at=scheduled_at,
        checked_at=scheduled_at + 0.0123,
        kind="http",
        up=up,
        status=(200, 200, 200, 301, 404)[number % 5] if up else None,
        response_time=0.001 + (number * 31 % 997) / 1000 if up else None,
        duration=0.002 + (number * 31 % 997) / 1000,
        error=None if up else "timeout: no answer in 10 s",
        matched=True if up else None,
        phases=Phases(0.001, 0.0123, 0.0, 0.1 + number % 7 / 100, 0.0004),
    )
