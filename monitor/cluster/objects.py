"""Reads the API's objects into the little that model events are made of; pure.

A Deployment or DeploymentConfig becomes a :class:`Service`, a Pod a :class:`Pod`. Fields
that are not named here are skipped while decoding, so a page of objects costs little more
than its bytes, and what a newer server adds is no error.

Sources: the Kubernetes API reference (apps/v1, core/v1), the conditions that kubectl's and
oc's ``rollout status`` go by, and OpenShift's apps.openshift.io/v1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from monitor.cluster.templates import (
    CONFIG_NAME,
    CONFIG_VERSION,
    NOTHING,
    TEMPLATE_HASH,
    Lenient,
    PodSpec,
    fingerprint_of,
    selector_text,
    template_images,
)

__all__ = [
    "DIGEST_PREFIX",
    "Metadata",
    "Page",
    "Pod",
    "Revision",
    "Service",
    "WatchEvent",
    "read_metadata",
    "read_page",
    "read_pod",
    "read_revisions",
    "read_service",
    "read_watch_event",
]

DIGEST_PREFIX = "@sha256:"

_REVISION = "deployment.kubernetes.io/revision"
_REVISION_HISTORY = "deployment.kubernetes.io/revision-history"


class Owner(Lenient):
    """An entry of ownerReferences."""

    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


class Metadata(Lenient):
    """An object's metadata."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[Owner] | None = None


class Condition(Lenient):
    """A condition of a workload or a pod."""

    type: str = ""
    status: str = ""
    reason: str | None = None
    message: str | None = None


class _WorkloadSpec(Lenient):
    replicas: int | None = None
    template: msgspec.Raw = NOTHING
    selector: msgspec.Raw = NOTHING


class _WorkloadStatus(Lenient):
    observed_generation: int | None = None
    latest_version: int | None = None
    replicas: int | None = None
    updated_replicas: int | None = None
    ready_replicas: int | None = None
    available_replicas: int | None = None
    conditions: list[Condition] | None = None


class _Workload(Lenient):
    metadata: Metadata
    spec: _WorkloadSpec = msgspec.field(default_factory=_WorkloadSpec)
    status: _WorkloadStatus = msgspec.field(default_factory=_WorkloadStatus)


class _ContainerStatus(Lenient):
    name: str = ""
    image_id: str | None = msgspec.field(default=None, name="imageID")


class _PodStatus(Lenient):
    conditions: list[Condition] | None = None
    container_statuses: list[_ContainerStatus] | None = None
    init_container_statuses: list[_ContainerStatus] | None = None


class _Pod(Lenient):
    metadata: Metadata
    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: _PodStatus = msgspec.field(default_factory=_PodStatus)


class Service(NamedTuple):
    """A model service as the cluster shows it now.

    ``images`` has the template's image by container, init containers too. ``revision`` grows
    with each new template; None where the controller has not looked at the object yet.
    ``complete`` says that all replicas are of this revision and available; ``stands`` that the
    controller called this rollout complete, though a replica may be missing by now; ``failure``
    is the reason and the message of a rollout that the controller gave up.
    """

    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: str
    generation: int
    revision: int | None
    fingerprint: str
    images: dict[str, str]
    replicas_wanted: int
    replicas_ready: int
    complete: bool
    stands: bool
    failure: tuple[str, str] | None
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    selector: str


class Pod(NamedTuple):
    """A pod: ``service`` is the kind and name of the Deployment or DeploymentConfig it is of.

    ``digests`` has what runs by container, as ``sha256:...``, where the runtime says it.
    """

    namespace: str
    name: str
    uid: str
    resource_version: str
    created: str
    service: tuple[str, str] | None
    ready: bool
    terminating: bool
    images: dict[str, str]
    digests: dict[str, str]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


class Revision(NamedTuple):
    """A template that a service had, and the numbers under which it was current.

    ``owner`` is the service's uid; ``pods`` is the label selector of this revision's pods.
    """

    owner: str
    fingerprint: str
    numbers: frozenset[int]
    pods: str


class _PageMetadata(Lenient):
    resource_version: str = ""
    continue_: str | None = msgspec.field(default=None, name="continue")


class Page(Lenient):
    """One page of a list; ``items`` are left undecoded."""

    metadata: _PageMetadata = msgspec.field(default_factory=_PageMetadata)
    items: list[msgspec.Raw] | None = None


class _AnyObject(Lenient):
    metadata: Metadata = msgspec.field(default_factory=Metadata)
    code: int | None = None
    reason: str | None = None
    message: str | None = None


class WatchEvent(Lenient):
    """One event of a watch: ADDED, MODIFIED, DELETED, BOOKMARK or ERROR."""

    type: str
    object: msgspec.Raw

    def resource_version(self) -> str:
        """Return the resource version of the object."""
        return _any_decoder.decode(self.object).metadata.resource_version

    def uid(self) -> str:
        """Return the uid of the object."""
        return _any_decoder.decode(self.object).metadata.uid

    def status(self) -> tuple[int, str]:
        """Return code and message of an ERROR's Status."""
        status = _any_decoder.decode(self.object)
        return status.code or 500, status.message or status.reason or "no reason given"


_page_decoder = msgspec.json.Decoder(Page)
_event_decoder = msgspec.json.Decoder(WatchEvent)
_any_decoder = msgspec.json.Decoder(_AnyObject)
_workload_decoder = msgspec.json.Decoder(_Workload)
_pod_decoder = msgspec.json.Decoder(_Pod)


def read_page(body: bytes) -> Page:
    """Decode a page of a list; raise msgspec.DecodeError for what isn't one."""
    return _page_decoder.decode(body)


def read_metadata(body: bytes | msgspec.Raw) -> Metadata:
    """Decode an object's metadata alone; raise msgspec.DecodeError for what has none."""
    return _any_decoder.decode(body).metadata


def read_watch_event(line: bytes) -> WatchEvent:
    """Decode a line of a watch; raise msgspec.DecodeError for what isn't one."""
    return _event_decoder.decode(line)


def read_service(kind: str, body: bytes | msgspec.Raw) -> Service:
    """Decode a Deployment or DeploymentConfig; raise msgspec.DecodeError for what isn't one."""
    item = _workload_decoder.decode(body)
    metadata, spec, status = item.metadata, item.spec, item.status
    annotations = metadata.annotations or {}
    if kind == "DeploymentConfig":
        revision = status.latest_version or None
    else:
        revision = _number(annotations.get(_REVISION))
    wanted = 1 if spec.replicas is None else spec.replicas
    progressing = next((c for c in status.conditions or () if c.type == "Progressing"), None)
    # The controllers stamp the generation that a status speaks of; an older one says nothing
    # about this template.
    current = (status.observed_generation or 0) >= (metadata.generation or 0)
    return Service(
        kind=kind,
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        resource_version=metadata.resource_version,
        generation=metadata.generation or 0,
        revision=revision,
        fingerprint=fingerprint_of(spec.template),
        images=template_images(spec.template),
        replicas_wanted=wanted,
        replicas_ready=status.ready_replicas or 0,
        complete=current and _complete(kind, wanted, status, progressing),
        stands=current and _stands(wanted, status, progressing),
        failure=_failure(status, progressing) if current else None,
        labels=metadata.labels or {},
        annotations=annotations,
        selector=selector_text(kind, spec.selector),
    )


def _complete(
    kind: str, wanted: int, status: _WorkloadStatus, progressing: Condition | None
) -> bool:
    """Decide as ``kubectl rollout status`` and ``oc rollout status`` do."""
    if kind == "DeploymentConfig" and (
        not status.latest_version
        or progressing is None
        or progressing.reason != "NewReplicationControllerAvailable"
    ):
        return False
    updated = status.updated_replicas or 0
    return (
        updated >= wanted
        and (status.replicas or 0) <= updated
        and (status.available_replicas or 0) >= updated
    )


def _stands(wanted: int, status: _WorkloadStatus, progressing: Condition | None) -> bool:
    updated = status.updated_replicas or 0
    return (
        progressing is not None
        and progressing.status == "True"
        and progressing.reason in {"NewReplicaSetAvailable", "NewReplicationControllerAvailable"}
        and updated >= wanted
        and (status.replicas or 0) <= updated
    )


def _failure(status: _WorkloadStatus, progressing: Condition | None) -> tuple[str, str] | None:
    if (
        progressing is None
        or progressing.status != "False"
        or progressing.reason not in {"ProgressDeadlineExceeded", "RolloutCancelled"}
    ):
        return None
    # What kept the pods from being made (a quota, say) is a condition of its own.
    messages = [progressing.message or ""]
    messages += [
        condition.message or ""
        for condition in status.conditions or ()
        if condition.type == "ReplicaFailure" and condition.status == "True"
    ]
    return progressing.reason or "", "; ".join(filter(None, messages))


def read_pod(body: bytes | msgspec.Raw) -> Pod:
    """Decode a Pod; raise msgspec.DecodeError for what isn't one."""
    item = _pod_decoder.decode(body)
    metadata, status = item.metadata, item.status
    statuses = [*(status.init_container_statuses or ()), *(status.container_statuses or ())]
    digests = {}
    for container in statuses:
        # docker-pullable://registry/name@sha256:... or registry/name@sha256:...; an id with
        # no name in front is the runtime's own and names nothing in a registry.
        _, at, digest = (container.image_id or "").rpartition(DIGEST_PREFIX)
        if at:
            digests[container.name] = f"sha256:{digest}"
    return Pod(
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        resource_version=metadata.resource_version,
        created=metadata.creation_timestamp or "",
        service=_service_of(metadata),
        ready=any(c.type == "Ready" and c.status == "True" for c in status.conditions or ()),
        terminating=metadata.deletion_timestamp is not None,
        images=item.spec.images(),
        digests=digests,
        labels=metadata.labels or {},
        annotations=metadata.annotations or {},
    )


def _service_of(metadata: Metadata) -> tuple[str, str] | None:
    """Return what a pod is of, by the names that the controllers give."""
    labels, annotations = metadata.labels or {}, metadata.annotations or {}
    owner = next((o for o in metadata.owner_references or () if o.controller is not False), None)
    if owner is None:
        return None
    if owner.kind == "ReplicaSet":
        name, dash, suffix = owner.name.rpartition("-")
        hashed = labels.get(TEMPLATE_HASH, suffix) == suffix
        return ("Deployment", name) if dash and hashed else None
    if owner.kind == "ReplicationController":
        config = annotations.get(CONFIG_NAME) or labels.get("deploymentconfig")
        return ("DeploymentConfig", config) if config else None
    return None


def read_revisions(kind: str, items: Sequence[bytes | msgspec.Raw]) -> list[Revision]:
    """Decode the ReplicaSets of Deployments, or the ReplicationControllers of DeploymentConfigs.

    A ReplicaSet that is taken up again by a rollback gets a new number and remembers its
    old ones; a ReplicationController has one number for good.
    """
    found = []
    for body in items:
        item = _workload_decoder.decode(body)
        annotations = item.metadata.annotations or {}
        if kind == "DeploymentConfig":
            texts = [annotations.get(CONFIG_VERSION, "")]
        else:
            texts = annotations.get(_REVISION_HISTORY, "").split(",")
            texts.append(annotations.get(_REVISION, ""))
        numbers = frozenset(number for text in texts if (number := _number(text)) is not None)
        if kind == "DeploymentConfig":
            pods = f"deployment={item.metadata.name}"
        else:
            pods = f"{TEMPLATE_HASH}={(item.metadata.labels or {}).get(TEMPLATE_HASH, '')}"
        fingerprint = fingerprint_of(item.spec.template)
        found += [
            Revision(owner.uid, fingerprint, numbers, pods)
            for owner in item.metadata.owner_references or ()
            if owner.kind == kind and numbers
        ]
    return found


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None
