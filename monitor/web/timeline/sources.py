"""What other parts keep, as events of a timeline. Pure but for the queries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from monitor.messages import ModelEvent
from monitor.store import Connection
from monitor.web.timeline.bursts import Burst, Counts, bursts_of
from monitor.web.timeline.events import Event, length_of
from monitor.web.timeline.outages import Outage

if TYPE_CHECKING:
    from monitor.alerts.incidents import Incident
    from monitor.alerts.settings import Maintenance
    from monitor.alerts.silences import Silence
    from monitor.relay.feed import Outage as FeedOutage

__all__ = [
    "by_incident",
    "event_of_incident",
    "event_of_outage",
    "events_of_bursts",
    "events_of_feed",
    "events_of_maintenance",
    "model_events",
]

_SENDERS_NAMED = 3
_KINDS = {
    "dev.cdevents.service.deployed": "deployed",
    "dev.cdevents.service.upgraded": "upgraded",
    "dev.cdevents.service.rolledback": "rolledback",
    "dev.cdevents.service.removed": "removed",
    "org.recodex.monitor.rollout.failed": "failed",
}
_decode = msgspec.json.Decoder(ModelEvent).decode


def event_of_outage(outage: Outage, name: str) -> Event:
    """Return an outage that was found in the results of a site."""
    return Event(
        id=f"outage-{outage.job_id}-{outage.start:.3f}",
        lane="incidents",
        kind="down",
        start=outage.start,
        end=outage.end,
        title=f"{name} down",
        detail=outage.error,
        cause=outage.error.partition(":")[0],
        names=(name,),
        job=outage.job_id,
        rough=outage.rough,
    )


def event_of_incident(incident: Incident, name: str | None, outages: Iterable[Outage]) -> Event:
    """Return an incident of a rule; ``name`` is that of its site.

    A rule may wait for some failures, or be younger than the outage: it began with its outage.
    """
    began = min((each.start for each in outages), default=incident.opened_at)
    return Event(
        id=f"incident-{incident.id}",
        lane="incidents",
        kind=incident.watch,
        start=min(began, incident.opened_at),
        end=incident.resolved_at,
        title=incident.title,
        detail=incident.reason,
        cause=incident.reason.partition(":")[0],
        names=(name or incident.subject,),
        job=incident.job,
        subject=incident.subject,
        incident=incident.id,
        acknowledged_by=incident.acknowledged_by,
        suppressed_by=incident.suppressed_by,
    )


def by_incident(
    outages: Iterable[Outage], incidents: Sequence[Incident]
) -> tuple[dict[str, list[Outage]], list[Outage]]:
    """Return the outages that incidents of rules on sites report, by id, and the others."""
    of_job: dict[int, list[Incident]] = {}
    for incident in incidents:
        if incident.watch == "site" and incident.job is not None:
            of_job.setdefault(incident.job, []).append(incident)
    told: dict[str, list[Outage]] = {}
    others = []
    for outage in outages:
        ids = [
            incident.id
            for incident in of_job.get(outage.job_id, ())
            if (outage.end is None or incident.opened_at <= outage.end)
            and (incident.resolved_at is None or incident.resolved_at >= outage.start)
        ]
        for id_ in ids:
            told.setdefault(id_, []).append(outage)
        if not ids:
            others.append(outage)
    return told, others


def model_events(
    connection: Connection, *, since: float, until: float, key: str | None, limit: int
) -> list[Event]:
    """Return the newest model events of a range but those of pods, oldest first."""
    of_key = "" if key is None else " AND key = %s"
    marks = ", ".join(["%s"] * len(_KINDS))
    rows = connection.query(
        "SELECT id, type, time, key, data FROM model_event WHERE time >= %s AND time < %s"  # noqa: S608 - our own text
        f" AND type IN ({marks}){of_key} ORDER BY time DESC, seq DESC LIMIT %s",
        (since, until, *_KINDS, *(() if key is None else (key,)), limit),
    )
    return [
        _model_event(id_, _KINDS[type_], time, key_, _decode(data))
        for id_, type_, time, key_, data in reversed(rows)
    ]


def _model_event(id_: str, kind: str, time: float, key: str, data: ModelEvent) -> Event:
    model = data.model or data.name
    named = f"{model} {data.version}" if data.version else model
    titles = {
        "deployed": f"{named} was deployed",
        "upgraded": f"{named} rolled out",
        "rolledback": f"{model} was rolled back" + (f" to {data.version}" if data.version else ""),
        "removed": f"{model} was removed",
        "failed": f"the rollout of {named} failed",
    }
    details = [
        f"{data.namespace} on {data.cluster}",
        f"from {data.previous_version}"
        if data.previous_version and data.previous_version != data.version
        else None,
        f"took {length_of(data.duration)}" if data.duration is not None else None,
        f"by {data.changed_by}" if data.changed_by else None,
        data.change_cause,
        data.reason,
        "found after the daemon had been away" if data.catch_up else None,
    ]
    return Event(
        id=f"model-{id_}",
        lane="models",
        kind=kind,
        start=time - (data.duration or 0.0),
        end=time,
        title=titles[kind],
        detail=", ".join(each for each in details if each),
        names=(model,),
        subject=key,
        # What was there at the first start, or happened unseen, was not at this time.
        rough=data.catch_up or data.cause == "snapshot",
    )


def events_of_bursts(counts: Counts) -> list[Event]:
    """Return the bursts of errors in the logs."""
    return [_burst_event(burst) for burst in bursts_of(counts.slots, width=counts.width)]


def _burst_event(burst: Burst) -> Event:
    named = [sender for sender, _ in burst.senders[:_SENDERS_NAMED]]
    others = len(burst.senders) - len(named)
    who = ", ".join(named) + (f" and {others} more" if others > 0 else "")
    return Event(
        id=f"errors-{burst.start:.0f}",
        lane="logs",
        kind="errors",
        start=burst.start,
        end=burst.end,
        title=f"{burst.errors} errors of {who}",
        count=burst.errors,
        names=tuple(named),
        subject=named[0] if len(burst.senders) == 1 else None,
    )


def events_of_feed(outages: Iterable[FeedOutage], *, since: float, until: float) -> list[Event]:
    """Return when the relay lacked a broker; what overlaps is one gap."""
    found: list[Event] = []
    for outage in sorted(outages, key=lambda each: each.since):
        last = found[-1] if found else None
        if last is not None and (last.end is None or outage.since <= last.end):
            end = (
                None if None in (last.end, outage.until) else max(last.end or 0, outage.until or 0)
            )
            found[-1] = msgspec.structs.replace(last, end=end)
            continue
        found.append(
            Event(
                id=f"gap-{outage.since:.3f}",
                lane="feed",
                kind="gap",
                start=outage.since,
                end=outage.until,
                title="the relay had lost a broker",
                detail="messages of jobs may be missing",
            )
        )
    return [each for each in found if each.start < until and (each.end is None or each.end > since)]


def events_of_maintenance(
    windows: Iterable[Maintenance],
    silences: Iterable[Silence],
    occurrences: Callable[[Maintenance, float, float], list[tuple[float, float]]],
    *,
    since: float,
    until: float,
) -> list[Event]:
    """Return the maintenance windows and silences of a range."""
    found = [
        Event(
            id=f"window-{window.name}-{start:.0f}",
            lane="maintenance",
            kind="window",
            start=start,
            end=end,
            title=f"maintenance {window.name}",
        )
        for window in windows
        for start, end in occurrences(window, since, until)
    ]
    found += [
        Event(
            id=f"silence-{silence.id}",
            lane="maintenance",
            kind="silence",
            start=silence.starts_at,
            end=silence.until,
            title=f"silence by {silence.created_by}",
            detail=silence.comment,
        )
        for silence in silences
    ]
    return sorted(found, key=lambda each: each.start)
