"""The last reported state of an object, and how it differs from an observation; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from monitor.cluster.containers import counted_images
from monitor.cluster.events import Context
from monitor.cluster.mapping import map_object
from monitor.cluster.objects import instant
from monitor.cluster.pods import with_digest
from monitor.cluster.services import Service

__all__ = [
    "Facts",
    "Reported",
    "Rollout",
    "former_revisions",
    "is_older",
    "lacks_digests",
    "news_of_images",
    "reported_state",
    "same_rollout",
    "version_differs",
    "with_replicas",
]

# Kubernetes keeps 10 old ReplicaSets by default, to which a rollback is possible.
_HISTORY = 12

Outcome = Literal["deployed", "upgraded", "rolledback", "failed"]


class Rollout(msgspec.Struct, frozen=True, omit_defaults=True):
    """The last rollout that was reported; ``duration`` in s, None if its begin was not seen."""

    outcome: Outcome
    at: float
    duration: float | None = None
    changed_by: str | None = None


class Reported(msgspec.Struct, frozen=True, omit_defaults=True):
    """The last reported state of an object, as the table cluster_state stores it.

    ``phase`` is ``seen`` for a service that existed at the first start but was not rolled out,
    ``told`` for one that was reported as deployed, ``failed`` for one whose first rollout failed,
    and ``removed`` for one that is gone. A removed one is kept for some time: if the object only
    left the label selector and comes back, ``life`` goes up and its events get new ids. So it does
    if the cluster goes back to an older state.

    ``digests`` has the digests that ran by container, if the image alone does not say them.
    ``since`` is when the current version was reported, ``rollout`` the last rollout, ``canary`` and
    ``canary_version`` are of the reported canary of a group.
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
    digests: dict[str, tuple[str, ...]] = {}
    fingerprint: str = ""
    history: tuple[tuple[int, str], ...] = ()
    failed_revision: int | None = None
    failed_since: str = ""
    failed_fingerprint: str = ""
    life: int = 0
    removed_at: float | None = None
    replicas_wanted: int | None = None
    replicas_ready: int | None = None
    traffic_percent: int | None = None
    since: float | None = None
    rollout: Rollout | None = None
    canary: str = ""
    canary_version: str | None = None

    @property
    def number(self) -> int:
        """The revision, or the generation of a kind without revisions."""
        return self.generation if self.revision is None else self.revision

    @property
    def latest(self) -> int:
        """The last number that was reported, even for a rollout that failed."""
        return max(self.number, self.failed_revision or 0)


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts from other objects: digests by container, and former templates.

    The digests of a container are those of its pods, that of the newest ready pod first. ``past``
    maps the fingerprint of a template to the revisions at which it was current.
    """

    digests: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    past: Mapping[str, frozenset[int]] = field(default_factory=dict)


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
    images, digests = {}, {}
    for name, image in service.images.items():
        found = facts.digests.get(name, ())
        before = _digests_of(reported, name, image)
        common = [digest for digest in before if digest in found]
        images[name] = with_digest(image, next(iter(common or found), None))
        if len(found) > 1 and "@" not in image:
            digests[name] = found
        elif not found and before:
            # Without pods: the next ones are compared with those that ran before.
            digests[name] = before
    mapped = map_object(
        context.mapping,
        name=service.name,
        labels=service.labels,
        annotations=service.annotations,
        images=images,
        template=service.template,
        version=service.version,
    )
    history = dict(reported.history) if reported is not None else {}
    history |= {
        number: fingerprint for fingerprint, numbers in facts.past.items() for number in numbers
    }
    history[service.number] = service.fingerprint
    # After a restore of the cluster, later revisions never were.
    kept = sorted(item for item in history.items() if item[0] <= service.number)
    if life == 0 and reported is not None:
        life = reported.life
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
        digests=digests,
        fingerprint=service.fingerprint,
        history=tuple(kept[-_HISTORY:]),
        life=life,
        replicas_wanted=service.replicas_wanted,
        replicas_ready=service.replicas_ready,
        traffic_percent=service.traffic_percent,
        since=reported.since if reported is not None else _since(service, context),
        rollout=reported.rollout if reported is not None else None,
        canary=reported.canary if reported is not None else "",
        canary_version=reported.canary_version if reported is not None else None,
    )


def _since(service: Service, context: Context) -> float:
    """Return since when a service that was just found has run like this, as far as it says."""
    return service.completed_at or service.changed_at or instant(service.created) or context.now


def _digests_of(reported: Reported | None, name: str, image: str) -> tuple[str, ...]:
    """Return the digests under which a container ran the same reference before."""
    if reported is None:
        return ()
    reference = reported.images.get(name, "").partition("@")[0]
    return _all_digests(reported, name) if reference == image else ()


def lacks_digests(reported: Reported) -> bool:
    """Return whether an image has no digest yet, such as one of a service without pods."""
    return any(image and "@" not in image for image in reported.images.values())


def is_older(reported: Reported, service: Service) -> bool:
    """Return whether an observation is from before the reported state: revisions only grow."""
    return service.number < reported.number


def same_rollout(reported: Reported, service: Service) -> bool:
    """Return whether a service is at the reported revision, with its template."""
    if reported.fingerprint != service.fingerprint:
        return False
    failed = reported.failed_revision
    if service.revision is None:
        # The template of before is a rollout, too, where another one has failed meanwhile.
        return failed is None
    # So it is where the cluster went back to before the failure.
    return reported.revision == service.revision and (failed is None or failed <= service.revision)


def former_revisions(reported: Reported, service: Service, facts: Facts) -> set[int]:
    """Return the revisions before the reported one that had the current template."""
    numbers = set(facts.past.get(service.fingerprint, ()))
    numbers |= {number for number, seen in reported.history if seen == service.fingerprint}
    if service.number >= reported.latest:
        # The current one only counts after a restore of the cluster.
        numbers.discard(service.number)
    return numbers


def with_replicas(reported: Reported, service: Service) -> Reported:
    """Return the reported state with the replicas that the service has now."""
    wanted, ready = service.replicas_wanted, service.replicas_ready
    if (reported.replicas_wanted, reported.replicas_ready) == (wanted, ready):
        return reported
    return msgspec.structs.replace(reported, replicas_wanted=wanted, replicas_ready=ready)


def news_of_images(before: Reported, after: Reported, wanted: str | None) -> bool:
    """Return whether the images of the containers that count differ.

    Digests count if both are known, and differ if no pod of before and of after had the same.
    ``wanted`` is ``mapping.container``.
    """
    old, new = counted_images(before.images, wanted), counted_images(after.images, wanted)
    if old.keys() != new.keys():
        return True
    for name, image in old.items():
        if image.partition("@")[0] != new[name].partition("@")[0]:
            return True
        ran, runs = _all_digests(before, name), _all_digests(after, name)
        if ran and runs and not set(ran) & set(runs):
            return True
    return False


def version_differs(before: Reported, after: Reported) -> bool:
    """Return whether the model or its version differs."""
    if before.model != after.model:
        return True
    # An unknown version, such as a digest that could not be looked up, is not a difference.
    if None in (before.version, after.version) or before.version == after.version:
        return False
    # Nor is another digest of those that run side by side.
    return not any(
        before.version in _all_digests(before, name)
        and after.version in _all_digests(after, name)
        and set(_all_digests(before, name)) & set(_all_digests(after, name))
        for name in after.images
    )


def _all_digests(reported: Reported, name: str) -> tuple[str, ...]:
    _, _, digest = reported.images.get(name, "").partition("@")
    return reported.digests.get(name, (digest,) if digest else ())
