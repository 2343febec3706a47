"""The last reported state of an object, and how it differs from an observation; pure."""

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
    "Reported",
    "former_revisions",
    "images_differ",
    "reported_state",
    "same_revision",
    "version_differs",
    "with_digest",
]

# Kubernetes keeps 10 old ReplicaSets by default, to which a rollback is possible.
_HISTORY = 12


class Reported(msgspec.Struct, frozen=True, omit_defaults=True):
    """The last reported state of an object, as the table cluster_state stores it.

    ``phase`` is ``seen`` for a service that existed at the first start but was not rolled out,
    ``told`` for one that was reported as deployed, ``failed`` for one whose first rollout failed,
    and ``removed`` for one that is gone. A removed one is kept for some time: if the object only
    left the label selector and comes back, ``life`` goes up and its events get new ids.
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
    """Facts from other objects: digests by container, and former templates.

    ``past`` maps the fingerprint of a template to the revisions at which it was current.
    """

    digests: Mapping[str, str] = field(default_factory=dict)
    past: Mapping[str, frozenset[int]] = field(default_factory=dict)


def with_digest(image: str, digest: str | None) -> str:
    """Return the image with its digest, if one is known and the image has none."""
    return image if "@" in image or not digest else f"{image}@{digest}"


def reported_state(
    reported: Reported | None,
    service: Service,
    context: Context,
    facts: Facts,
    *,
    phase: Literal["seen", "told", "failed"],
    life: int = 0,
) -> Reported:
    """Return the new reported state of a service; ``reported`` is the previous one."""
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
    history = dict(reported.history) if reported is not None else {}
    history |= {
        number: fingerprint for fingerprint, numbers in facts.past.items() for number in numbers
    }
    if service.revision is not None:
        history[service.revision] = service.fingerprint
    return Reported(
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
        life=reported.life if reported is not None else life,
    )


def same_revision(reported: Reported, service: Service) -> bool:
    """Return whether a service is at the reported revision or, without one, has its template."""
    if reported.revision is None or service.revision is None:
        return reported.fingerprint == service.fingerprint
    return reported.revision == service.revision


def former_revisions(reported: Reported, service: Service, facts: Facts) -> set[int]:
    """Return the other revisions that had the current template."""
    numbers = set(facts.past.get(service.fingerprint, ()))
    numbers |= {number for number, seen in reported.history if seen == service.fingerprint}
    return numbers - {service.revision}


def images_differ(before: Mapping[str, str], after: Mapping[str, str]) -> bool:
    """Return whether the images of containers differ; digests count if both are known."""
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


def version_differs(before: Reported, after: Reported) -> bool:
    """Return whether the model or its version differs."""
    # An unknown version, such as a digest that could not be looked up, is not a difference.
    return before.model != after.model or (
        None not in (before.version, after.version) and before.version != after.version
    )
