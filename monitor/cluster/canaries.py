"""Compares the canary of a group with the reported one, and makes the events for it; pure."""

from __future__ import annotations

import msgspec

from monitor.cluster.changes import Change, event_data
from monitor.cluster.events import ROLLED_BACK, UPGRADED, Context, image_changes, make_event
from monitor.cluster.reported import Facts, Reported, reported_state
from monitor.cluster.services import Service
from monitor.messages import ModelEvent

__all__ = ["compare_canary", "is_canary_news"]


def is_canary_news(reported: Reported, canary: Service | None) -> bool:
    """Return whether the part of a group's replicas that runs another version is not reported."""
    fingerprint = "" if canary is None else canary.fingerprint
    return reported.phase == "told" and fingerprint != reported.canary


def compare_canary(
    reported: Reported, uid: str, canary: Service | None, context: Context, facts: Facts
) -> Change:
    """Report that a part of a group's replicas runs another version, or no longer does."""
    if not is_canary_news(reported, canary):
        return Change(reported)
    if canary is None:
        return _canary_ended(reported, uid, context)
    runs = reported_state(None, canary, context, facts, phase="told")
    after = msgspec.structs.replace(
        reported,
        canary=canary.fingerprint,
        canary_version=runs.version,
        generation=canary.generation,
    )
    data = event_data(canary, runs, context, before=reported, cause="canary")
    event = make_event(UPGRADED, uid, canary.number, after.life, data=data, context=context)
    return Change(after, event)


def _canary_ended(reported: Reported, uid: str, context: Context) -> Change:
    after = msgspec.structs.replace(reported, canary="", canary_version=None)
    if reported.canary_version in {None, reported.version}:
        return Change(after)
    after = msgspec.structs.replace(after, generation=reported.generation + 1)
    data = ModelEvent(
        cluster=context.cluster,
        namespace=reported.namespace,
        kind=reported.kind,
        name=reported.name,
        uid=uid,
        model=reported.model,
        version=reported.version,
        previous_version=reported.canary_version,
        images=image_changes(reported.images, reported.images),
        replicas_wanted=reported.replicas_wanted,
        replicas_ready=reported.replicas_ready,
        cause="canary",
        catch_up=context.catch_up,
    )
    event = make_event(ROLLED_BACK, uid, after.number, after.life, data=data, context=context)
    return Change(after, event)
