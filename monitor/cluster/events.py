"""Model events: their types, ids, sources and keys; pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from monitor.cluster.mapping import MappingSettings
from monitor.messages import Image, ModelEvent

__all__ = [
    "DEPLOYED",
    "FAILED",
    "POD_READY",
    "REMOVED",
    "ROLLED_BACK",
    "UPGRADED",
    "Context",
    "Event",
    "event_id",
    "image_changes",
    "make_event",
]

DEPLOYED = "dev.cdevents.service.deployed"
UPGRADED = "dev.cdevents.service.upgraded"
ROLLED_BACK = "dev.cdevents.service.rolledback"
REMOVED = "dev.cdevents.service.removed"
FAILED = "org.recodex.monitor.rollout.failed"
POD_READY = "org.recodex.monitor.pod.ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The circumstances of an observation.

    ``baseline`` is true during the very first list of a scope, ``catch_up`` during the first list
    of this run of the daemon. ``now`` is in s since the epoch.
    """

    cluster: str
    mapping: MappingSettings
    now: float
    baseline: bool = False
    catch_up: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """A model event with its CloudEvents attributes; ``key`` keeps events of a service in order."""

    id: str
    type: str
    source: str
    key: str
    time: float
    data: ModelEvent


def event_id(cluster: str, uid: str, type_: str, revision: int | None, life: int = 0) -> str:
    """Return the id of a change: a digest of cluster, uid, type and revision.

    The same change always has the same id. ``life`` counts how often the object came back after it
    was reported as removed.
    """
    parts = [cluster, uid, type_, "" if revision is None else str(revision)]
    if life:
        parts.append(str(life))
    # With their lengths, so that different lists of parts never give the same text.
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def image_changes(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[Image, ...]:
    """Pair the images before and after a change by container."""
    names = [*after, *(name for name in before if name not in after)]
    return tuple(
        Image(container=name, before=before.get(name), after=after.get(name)) for name in names
    )


def make_event(
    type_: str,
    uid: str,
    revision: int | None,
    life: int,
    *,
    data: ModelEvent,
    context: Context,
    key: str | None = None,
) -> Event:
    """Make an event from its data; ``key`` is by default that of the object."""
    plural = f"{data.kind.lower()}s"
    return Event(
        id=event_id(context.cluster, uid, type_, revision, life),
        type=type_,
        source=f"/clusters/{data.cluster}/namespaces/{data.namespace}/{plural}/{data.name}",
        key=key or f"{data.namespace}/{data.name}",
        time=context.now,
        data=data,
    )
