"""Whether a rule, a silence or a window applies to a subject. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from monitor.alerts.settings import Match

__all__ = ["fits", "matches"]

_BRACKET = re.compile(r"(\[[*?[]\])|\[")


def fits(text: str, pattern: str) -> bool:
    """Return whether a pattern fits a text.

    ``*`` and ``?`` are wildcards, ``[*]`` and ``[?]`` are plain ones.
    """
    if "[" in pattern:
        pattern = _BRACKET.sub(lambda found: found[1] or "[[]", pattern)
    return fnmatchcase(text, pattern)


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
    if match.sender is not None and (watch != "logs" or not fits(subject, match.sender)):
        return False
    if match.subject is not None and not fits(subject, match.subject):
        return False
    return match.rule is None or fits(rule, match.rule)
