"""Model events: their types, ids, sources and keys; pure."""

from __future__ import annotations

import hashlib
import string
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

import msgspec

from monitor.cluster.mapping import MappingSettings
from monitor.messages import Image, ModelEvent

__all__ = [
    "DEPLOYED",
    "FAILED",
    "LINK_FIELDS",
    "POD_READY",
    "REMOVED",
    "ROLLED_BACK",
    "UPGRADED",
    "Context",
    "Event",
    "event_id",
    "image_changes",
    "link_problem",
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
    of this run of the daemon, ``listed`` during any list. ``now`` is in s since the epoch, and so
    is ``began``: when the rollout was first seen, if its begin was. ``link`` is the template of
    links, ``plural`` the name of the collection in them; without it, one is made from the kind.
    """

    cluster: str
    mapping: MappingSettings
    now: float
    baseline: bool = False
    catch_up: bool = False
    listed: bool = False
    began: float | None = None
    link: str | None = None
    plural: str = ""


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
    if context.link is not None:
        link = link_of(context.link, data, context.plural or plural)
        data = msgspec.structs.replace(data, link=link)
    return Event(
        id=event_id(context.cluster, uid, type_, revision, life),
        type=type_,
        source=f"/clusters/{data.cluster}/namespaces/{data.namespace}/{plural}/{data.name}",
        key=key or f"{data.namespace}/{data.name}",
        time=context.now,
        data=data,
    )


LINK_FIELDS = ("cluster", "namespace", "kind", "plural", "name", "uid", "model", "version")


def link_problem(template: str) -> str | None:
    """Return what is wrong with the template of links, if anything is."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError:
        return "has a brace without its partner; write {{ or }} for a brace"
    for _, field, format_, conversion in parts:
        if field is not None and (field not in LINK_FIELDS or format_ or conversion):
            return f"has {{{field}}}; known are {', '.join(LINK_FIELDS)}"
    return None


def link_of(template: str, data: ModelEvent, plural: str) -> str:
    """Return the link to an object, with the fields quoted as parts of a URL."""
    fields = {name: getattr(data, name, None) or "" for name in LINK_FIELDS} | {"plural": plural}
    return template.format_map({name: quote(str(text), safe="") for name, text in fields.items()})
