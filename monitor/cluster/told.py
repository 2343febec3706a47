"""The last state told of an object, how it is made, and how it compares with the next; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from monitor.cluster.events import Context
from monitor.cluster.mapping import map_object
from monitor.cluster.services import Service

__all__ = [
    "Facts",
    "Told",
    "former_revisions",
    "images_differ",
    "same_revision",
    "tell",
    "version_differs",
    "with_digest",
]

# Kubernetes keeps 10 old ReplicaSets by default; more than those nobody can roll back to.
_HISTORY = 12


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """The last state told of an object, as the table cluster_state keeps it.

    ``phase`` is ``seen`` for a service that was there at the first start but not yet rolled
    out, ``told`` for one that stands, ``failed`` for one whose very first rollout failed, and
    ``removed`` for one that is gone: kept for a time, so that an object that only left the
    label selector and comes back starts another life, with other event ids.
    """

    kind: str
    namespace: str
    name: str
    phase: Literal["seen", "told", "failed", "removed"]
    revision: int | None = None
    generation: int = 0
    model: str | None = None
    version: str | None = None
    images: dict[str, str] = {}
    fingerprint: str = ""
    history: tuple[tuple[int, str], ...] = ()
    failed_revision: int | None = None
    failed_since: str = ""
    life: int = 0
    removed_at: float | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What only other objects know: digests by container, and former templates.

    ``past`` has by fingerprint the revisions at which a template was current.
    """

    digests: Mapping[str, str] = field(default_factory=dict)
    past: Mapping[str, frozenset[int]] = field(default_factory=dict)


def with_digest(image: str, digest: str | None) -> str:
    """Write an image with its digest, where one is known and the image doesn't say it."""
    return image if "@" in image or not digest else f"{image}@{digest}"


def tell(
    told: Told | None,
    service: Service,
    context: Context,
    facts: Facts,
    *,
    phase: Literal["seen", "told", "failed"],
    life: int = 0,
) -> Told:
    """Return what is told of a service from now on, after what was ``told`` before."""
    images = {
        name: with_digest(image, facts.digests.get(name)) for name, image in service.images.items()
    }
    mapped = map_object(
        context.mapping,
        name=service.name,
        labels=service.labels,
        annotations=service.annotations,
        images=images,
    )
    history = dict(told.history) if told is not None else {}
    history |= {
        number: fingerprint for fingerprint, numbers in facts.past.items() for number in numbers
    }
    if service.revision is not None:
        history[service.revision] = service.fingerprint
    return Told(
        kind=service.kind,
        namespace=service.namespace,
        name=service.name,
        phase=phase,
        revision=service.revision,
        generation=service.generation,
        model=mapped.model,
        version=mapped.version,
        images=images,
        fingerprint=service.fingerprint,
        history=tuple(sorted(history.items())[-_HISTORY:]),
        life=told.life if told is not None else life,
    )


def same_revision(told: Told, service: Service) -> bool:
    """Return whether a service is at the revision told, or has the template told."""
    if told.revision is None or service.revision is None:
        return told.fingerprint == service.fingerprint
    return told.revision == service.revision


def former_revisions(told: Told, service: Service, facts: Facts) -> set[int]:
    """Return the revisions other than the present one that had the present template."""
    numbers = set(facts.past.get(service.fingerprint, ()))
    numbers |= {number for number, seen in told.history if seen == service.fingerprint}
    return numbers - {service.revision}


def images_differ(before: Mapping[str, str], after: Mapping[str, str]) -> bool:
    """Return whether containers run other images; digests count where both are known."""
    if before.keys() != after.keys():
        return True
    for name, old in before.items():
        old_reference, _, old_digest = old.partition("@")
        reference, _, digest = after[name].partition("@")
        if old_digest and digest:
            if old_digest != digest or old_reference != reference:
                return True
        elif old_reference != reference:
            return True
    return False


def version_differs(before: Told, after: Told) -> bool:
    """Return whether the model, or its version, is another one."""
    # What was not known before, or is not now, has not changed: a digest that could not be
    # looked up, for example.
    return before.model != after.model or (
        None not in (before.version, after.version) and before.version != after.version
    )
