"""The Atom feed of public incidents (RFC 4287). Pure."""

from __future__ import annotations

import uuid
from html import escape

from monitor.web.public.status import PublicIncident, PublicStatus
from monitor.web.public.words import duration_text, instant_text, iso_text

__all__ = ["ATOM", "render_feed"]

ATOM = "application/atom+xml"

_MOST = 100
_FEED = uuid.UUID("6b0f2a36-5f0a-4ac5-9c8e-0b9a3a3f2d55")


def render_feed(status: PublicStatus) -> str:
    """Return the feed; its links are relative to where it is served."""
    entries = status.incidents[:_MOST]
    updated = max((each.ended_at or each.started_at for each in entries), default=None)
    name = uuid.uuid5(_FEED, status.title)
    return "".join(
        (
            '<?xml version="1.0" encoding="utf-8"?>\n<feed xmlns="http://www.w3.org/2005/Atom">\n',
            f"<id>urn:uuid:{name}</id>\n<title>{escape(status.title)}</title>\n",
            f"<subtitle>{escape(status.verdict)}</subtitle>\n",
            f"<updated>{iso_text(status.at if updated is None else updated)}</updated>\n",
            '<link rel="self" type="application/atom+xml" href="incidents.atom"/>\n',
            '<link rel="alternate" type="text/html" href="../status"/>\n',
            "<author><name>recodex-monitor</name></author>\n",
            *(_entry(each) for each in entries),
            "</feed>\n",
        )
    )


def _entry(incident: PublicIncident) -> str:
    began = instant_text(incident.started_at)
    if incident.ended_at is None:
        title, text = f"{incident.name} is down", f"Down since {began}."
    else:
        lasted = duration_text(incident.ended_at - incident.started_at)
        title = f"{incident.name} was down for {lasted}"
        text = f"Down from {began} until {instant_text(incident.ended_at)}."
    changed = incident.started_at if incident.ended_at is None else incident.ended_at
    return (
        f"<entry><id>urn:uuid:{uuid.uuid5(_FEED, incident.id)}</id>"
        f"<title>{escape(title)}</title>"
        f"<published>{iso_text(incident.started_at)}</published>"
        f"<updated>{iso_text(changed)}</updated>"
        '<link rel="alternate" type="text/html" href="../status"/>'
        f'<content type="text">{escape(text)}</content></entry>\n'
    )
