"""What a kind of object has to say to be watched as a model service; pure.

A kind is one module of this package with one instance of :class:`Kind`; ``__init__`` lists them. It
names the resource, reads an object as a :class:`~monitor.cluster.services.Service`, and says which
other resources have its former templates.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from monitor.cluster.objects import (
    NOTHING,
    Condition,
    Lenient,
    Managed,
    OwnMetadata,
    Template,
    decoder_of,
    fingerprint_of,
    instant,
    read_template,
    selector_text,
)
from monitor.cluster.services import Failure, Revision, Service

__all__ = [
    "PODS",
    "Kind",
    "Resource",
    "Workload",
    "WorkloadSpec",
    "WorkloadStatus",
    "condition_of",
    "number_of",
    "read_workload",
    "replica_set_revisions",
    "resource_service",
    "service_of",
]

# Controllers write to the objects as well; they are not who changed them.
_CONTROLLERS = frozenset({"kube-controller-manager", "argo-rollouts", "rollouts-controller"})


@dataclass(frozen=True, slots=True)
class Resource:
    """A collection of the API; the group of the core is empty."""

    group: str
    version: str
    plural: str

    def path(self, namespace: str) -> str:
        """Return the path of the collection; the namespace "" means all."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        inside = f"/namespaces/{namespace}" if namespace else ""
        return f"{root}{inside}/{self.plural}"


PODS = Resource("", "v1", "pods")


class Kind(ABC):
    """One kind of object."""

    name: str
    resource: Resource
    optional: ClassVar[bool] = True
    """Whether a cluster may lack the kind; every cluster has those of Kubernetes itself."""
    holder: ClassVar[Resource | None] = None
    """What has the former templates, if the kind has such objects."""
    has_pods: ClassVar[bool] = True
    """Whether the digests of its images are found in pods with its labels."""

    @abstractmethod
    def read(self, body: bytes | msgspec.Raw) -> Service | None:
        """Decode an object; None if it belongs to another one. Raises msgspec.DecodeError."""

    def read_revisions(self, items: Sequence[bytes | msgspec.Raw]) -> list[Revision]:
        """Decode objects of the holder; raises msgspec.DecodeError."""
        del items
        return []

    @property
    def looks_up(self) -> tuple[Resource, ...]:
        """What is listed when a rollout is complete."""
        pods = (PODS,) if self.has_pods else ()
        return pods if self.holder is None else (self.holder, *pods)


class WorkloadSpec(Lenient):
    """The spec that the workloads of Kubernetes have in common."""

    replicas: int | None = None
    paused: bool | None = None
    template: msgspec.Raw = NOTHING
    selector: msgspec.Raw = NOTHING


class WorkloadStatus(Lenient):
    """The status that they have in common; each has only some of it."""

    observed_generation: int | None = None
    latest_version: int | None = None
    replicas: int | None = None
    updated_replicas: int | None = None
    ready_replicas: int | None = None
    available_replicas: int | None = None
    conditions: list[Condition] | None = None
    # of a StatefulSet
    current_revision: str | None = None
    update_revision: str | None = None
    # of a DaemonSet, which counts nodes
    desired_number_scheduled: int | None = None
    updated_number_scheduled: int | None = None
    number_available: int | None = None
    number_ready: int | None = None


class Workload(Lenient):
    """A workload with a pod template."""

    metadata: OwnMetadata
    spec: WorkloadSpec = msgspec.field(default_factory=WorkloadSpec)
    status: WorkloadStatus = msgspec.field(default_factory=WorkloadStatus)

    def is_current(self) -> bool:
        """Return whether the status is of the current generation, not of an older one."""
        return (self.status.observed_generation or 0) >= (self.metadata.generation or 0)

    def wanted(self) -> int:
        """Return the wanted replicas, by default 1."""
        return 1 if self.spec.replicas is None else self.spec.replicas


read_workload = decoder_of(Workload)


def service_of(
    kind: str,
    item: Workload,
    *,
    complete: bool,
    revision: int | None = None,
    rolled_out: bool = False,
    failure: Failure | None = None,
    **more: Any,
) -> Service:
    """Return a workload as a service; the keywords are what its kind alone knows."""
    metadata, spec = item.metadata, item.spec
    template = read_template(spec.template)
    changed_by, changed_at = writer_of(metadata)
    return Service(
        **{
            "kind": kind,
            "namespace": metadata.namespace,
            "name": metadata.name,
            "uid": metadata.uid,
            "resource_version": metadata.resource_version,
            "generation": metadata.generation or 0,
            "revision": revision,
            "fingerprint": fingerprint_of(spec.template),
            "images": template.spec.images(),
            "replicas_wanted": item.wanted(),
            "replicas_ready": item.status.ready_replicas or 0,
            "complete": complete,
            "rolled_out": rolled_out,
            "failure": failure,
            "labels": metadata.labels or {},
            "annotations": metadata.annotations or {},
            "selector": selector_text(spec.selector),
            "template": template,
            "created": metadata.creation_timestamp or "",
            "changed_by": changed_by,
            "changed_at": changed_at,
            **more,
        }
    )


def resource_service(
    kind: str,
    metadata: OwnMetadata,
    *,
    fingerprint: str,
    complete: bool,
    failure: Failure | None,
    generation: int | None = None,
    images: dict[str, str] | None = None,
    template: Template | None = None,
    version: str | None = None,
    traffic_percent: int | None = None,
) -> Service:
    """Return the service of a custom resource, which has neither revisions nor replicas."""
    changed_by, changed_at = writer_of(metadata)
    return Service(
        kind=kind,
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        resource_version=metadata.resource_version,
        generation=(metadata.generation or 0) if generation is None else generation,
        revision=None,
        fingerprint=fingerprint,
        images=images or {},
        replicas_wanted=None,
        replicas_ready=None,
        complete=complete,
        rolled_out=False,
        failure=failure,
        labels=metadata.labels or {},
        annotations=metadata.annotations or {},
        template=template or Template(),
        version=version,
        traffic_percent=traffic_percent,
        created=metadata.creation_timestamp or "",
        changed_by=changed_by,
        changed_at=changed_at,
    )


def replica_set_revisions(
    items: Sequence[bytes | msgspec.Raw], owner_kind: str, *, annotation: str, hash_label: str
) -> list[Revision]:
    """Decode ReplicaSets; one that a rollback uses again keeps the old revisions, too.

    ``annotation`` is that of the revision; former ones are in another that ends in ``-history``.
    ``hash_label`` is the label by which the pods are told apart.
    """
    found = []
    for body in items:
        item = read_workload(body)
        annotations = item.metadata.annotations or {}
        texts = [
            *annotations.get(f"{annotation}-history", "").split(","),
            annotations.get(annotation),
        ]
        numbers = frozenset(number for text in texts if (number := number_of(text)) is not None)
        pods = f"{hash_label}={(item.metadata.labels or {}).get(hash_label, '')}"
        fingerprint = fingerprint_of(item.spec.template)
        found += [
            Revision(owner.uid, fingerprint, numbers, pods)
            for owner in item.metadata.owner_references or ()
            if owner.kind == owner_kind and numbers
        ]
    return found


def writer_of(metadata: OwnMetadata) -> tuple[str | None, float | None]:
    """Return who last changed the spec, and when; None if the object does not say it."""

    def is_spec(entry: Managed) -> bool:
        return (
            not entry.subresource
            and entry.manager not in _CONTROLLERS
            and b'"f:spec"' in bytes(entry.fields_v1)
        )

    entries = [entry for entry in metadata.managed_fields or () if is_spec(entry)]
    # Who changed the template, if that is known: others may only have scaled.
    template = [entry for entry in entries if b'"f:template"' in bytes(entry.fields_v1)]
    last = max(template or entries, key=lambda entry: instant(entry.time) or 0.0, default=None)
    return (last.manager or None, instant(last.time)) if last is not None else (None, None)


def condition_of(conditions: Sequence[Condition] | None, type_: str) -> Condition | None:
    """Return the condition of a type, if there is one."""
    return next((each for each in conditions or () if each.type == type_), None)


def number_of(text: str | None) -> int | None:
    """Return a revision of an annotation; None if it is not a number."""
    return int(text) if text is not None and text.isascii() and text.isdigit() else None
