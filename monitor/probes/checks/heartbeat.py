"""The kind ``heartbeat``: a job elsewhere, such as one of cron, that reports in time."""

from __future__ import annotations

from functools import cache, partial
from typing import Annotated, Any, ClassVar

import msgspec

from monitor.errors import SettingError
from monitor.probes.beats import NoBeatYetError
from monitor.probes.check import Attempt, Check, Outcome
from monitor.probes.job import Job
from monitor.settings import verify_each

__all__ = ["HeartbeatCheck", "HeartbeatJob"]

_WEEK_S = 7 * 86400.0
# Keys of all jobs that are about asking a site.
_WITHOUT_EFFECT = ("timeout", "retries", "ip_version", "degraded_after")


class HeartbeatJob(Job, frozen=True, kw_only=True, tag="heartbeat"):
    """A job that reports to ``/heartbeat/KEY`` at least every interval."""

    # none: the job reports by itself
    url: str = ""
    # s that a beat may be late
    grace: Annotated[float, msgspec.Meta(ge=0, le=_WEEK_S)] = 0.0

    def verify(self) -> None:
        """Check that there is no URL, and no key about asking one."""
        verify_each(
            self.verify_common,
            self._verify_url,
            *(partial(self._verify_default, *each) for each in _defaults()),
        )

    def _verify_url(self) -> None:
        if self.url:
            raise SettingError(("url",), "a heartbeat has none: its job reports by itself")

    def _verify_default(self, name: str, default: object) -> None:
        if getattr(self, name) != default:
            raise SettingError((name,), "has no effect on a heartbeat: nothing is asked")


@cache
def _defaults() -> list[tuple[str, Any]]:
    """Return the keys without effect, with their defaults."""
    fields = msgspec.structs.fields(HeartbeatJob)
    return [(each.name, each.default) for each in fields if each.name in _WITHOUT_EFFECT]


class HeartbeatCheck(Check[HeartbeatJob]):
    """Looks when the last beat came."""

    job = HeartbeatJob
    errors: ClassVar = {
        "late": "no heartbeat came within the interval and the grace",
        "reported": "the job itself reported that it failed",
    }

    def prepare(self, job: HeartbeatJob) -> Attempt:
        """Return what looks at the job's last beat."""
        beats, within_s = self.beats, job.interval + job.grace
        set_up_at = beats.clock()

        async def attempt() -> Outcome:
            found, now = beats.last(job.id), beats.clock()
            came_at, beat = (set_up_at, None) if found is None else found
            left_s = came_at + within_s - now
            if beat is None and left_s > 0:
                beats.expect(job.id, left_s)
                raise NoBeatYetError(job.id)
            awaited_s = beats.awaited_until(within_s) - now
            if beat is not None and left_s <= 0 < awaited_s:
                beats.expect(job.id, awaited_s)
                raise NoBeatYetError(job.id, "no heartbeat came since the start")
            if beat is None or left_s <= 0:
                since = "it was set up" if beat is None else "the last one"
                return Outcome(up=False, error=f"late: {within_s - left_s:.0f} s after {since}")
            beats.expect(job.id, left_s)
            if not beat.up:
                said = beat.message.encode("ascii", "backslashreplace").decode()
                return Outcome(up=False, matched=False, error=f"reported: {said or 'down'}")
            return Outcome(up=True, matched=True)

        return attempt
