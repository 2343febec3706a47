"""Prometheus Alertmanager, by its API v2.

An Alertmanager keeps alerts in memory and ends one that it is not sent again. So it is sent the
open ones each minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from monitor.alerts.incidents import Incident
from monitor.alerts.receivers import Message, Outcome
from monitor.alerts.receivers.posting import Body, encoded_pieces, post
from monitor.alerts.receivers.webhook import outcome_of
from monitor.alerts.texts import link_to
from monitor.files.threads import call_aside

__all__ = ["Alertmanager"]

_REFRESH_S = 60.0
# An alert ends by itself so long (s) after this daemon was heard last.
_LIFETIME_S = 3600.0
_TEST_LIFETIME_S = 60.0
# One that hangs holds up the next message to the others. To get an alert twice changes nothing.
_PATIENCE_S = 15.0


class Alertmanager:
    """Some Alertmanagers of one cluster; each is sent every alert."""

    refresh_s = _REFRESH_S
    key = ""

    def __init__(self, receiver: str, urls: Sequence[str]) -> None:
        self.receiver = receiver
        self._urls = [f"{url.rstrip('/')}/api/v2/alerts" for url in urls]

    async def send(self, message: Message) -> Outcome:
        """Send a message to all; it is accepted if one accepts it."""
        body = await call_aside(
            Body, lambda: encoded_pieces(message.incidents, lambda each: _alert(each, message))
        )
        headers = {"Content-Type": "application/json", "X-Delivery": message.delivery}
        answers = await asyncio.gather(
            *(call_aside(post, url, body, headers, limit_s=_PATIENCE_S) for url in self._urls)
        )
        outcomes = [outcome_of(answer) for answer in answers]
        return max(outcomes, key=lambda outcome: (outcome.accepted, not outcome.refused))


def _alert(incident: Incident, message: Message) -> dict[str, Any]:
    lifetime_s = _TEST_LIFETIME_S if message.event == "test" else _LIFETIME_S
    ends_at = incident.resolved_at
    if ends_at is None:
        ends_at = message.now + lifetime_s
    labels = {
        "alertname": incident.rule,
        "incident": incident.id,
        "watch": incident.watch,
        "subject": incident.subject,
    }
    return {
        "labels": labels,
        "annotations": {"summary": incident.title, "description": incident.reason},
        "startsAt": _time(incident.opened_at),
        # It refuses an end before the start, which a clock that was set back can make.
        "endsAt": _time(max(ends_at, incident.opened_at + 0.001)),
        "generatorURL": link_to(incident, message.page) or "",
    }


def _time(instant: float) -> str:
    return datetime.fromtimestamp(instant, UTC).isoformat().replace("+00:00", "Z")
