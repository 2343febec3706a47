"""Whether a rule, a silence or a window applies to a subject. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from monitor.alerts.settings import Match

__all__ = ["matches"]


def matches(
    match: Match,
    *,
    subject: str,
    watch: str,
    rule: str = "",
    job_id: int | None = None,
    tags: Sequence[str] = (),
) -> bool:
    """Return whether everything in ``match`` fits."""
    if match.tags and not set(match.tags) & set(tags):
        return False
    if match.jobs and job_id not in match.jobs:
        return False
    if match.sender is not None and (watch != "logs" or not fnmatchcase(subject, match.sender)):
        return False
    if match.subject is not None and not fnmatchcase(subject, match.subject):
        return False
    return match.rule is None or fnmatchcase(rule, match.rule)
