"""The texts of messages for people: what, since when, why, and a link. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from monitor.alerts.incidents import Event, Incident

__all__ = ["body_of", "link_to", "title_of", "when"]

_MOST_SHOWN = 20
_WORDS = {"opened": "", "repeated": "still open: ", "resolved": "resolved: ", "test": "test: "}


def title_of(event: Event, incidents: Sequence[Incident]) -> str:
    """Return a line that says what happened."""
    first = incidents[0].title
    if len(incidents) == 1:
        return f"{_WORDS[event]}{first}"
    return f"{_WORDS[event]}{len(incidents)} incidents: {first}, and {len(incidents) - 1} more"


def body_of(
    event: Event,
    incidents: Sequence[Incident],
    page: str | None,
    *,
    fits: Callable[[str], bool] = lambda _: True,
) -> str:
    """Return a few lines for each incident, and how many more there are.

    It has as many as fit, and one at least.
    """
    del event
    texts = [_about(incident, page) for incident in incidents[:_MOST_SHOWN]]
    while True:
        more = len(incidents) - len(texts)
        rest = f"and {more} more" + (f": {_root(page)}#/incidents" if page else "")
        body = "\n\n".join([*texts, *([rest] if more else [])])
        if len(texts) == 1 or fits(body):
            return body
        texts.pop()


def link_to(incident: Incident, page: str | None) -> str | None:
    """Return the URL of an incident on the live page, if the page's URL is known."""
    return None if page is None else f"{_root(page)}#/incidents/{incident.id}"


def when(instant: float) -> str:
    """Return a time (s since the epoch) for people."""
    try:
        return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return "an unknown time"


def _about(incident: Incident, page: str | None) -> str:
    since = f"since {when(incident.opened_at)}"
    if incident.resolved_at is not None:
        lasted = _span(incident.resolved_at - incident.opened_at)
        since = f"from {when(incident.opened_at)} until {when(incident.resolved_at)} ({lasted})"
    lines = [incident.title, since, incident.reason]
    if incident.acknowledged_by is not None:
        lines.append(f"acknowledged by {incident.acknowledged_by}")
    lines.append(f"rule {incident.rule}, incident {incident.id}")
    link = link_to(incident, page)
    return "\n".join([*lines, *([link] if link else [])])


def _root(page: str) -> str:
    return page.split("#", maxsplit=1)[0]


def _span(seconds: float) -> str:
    seconds = max(0, round(seconds))
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds // unit} {name}"
    return f"{seconds} s"
