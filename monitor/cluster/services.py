"""Reads Deployments and DeploymentConfigs, and their former templates; pure.

Sources: the Kubernetes API reference (apps/v1), the conditions that ``rollout status`` of kubectl
and oc use, and OpenShift's apps.openshift.io/v1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from monitor.cluster.objects import (
    CONFIG_VERSION,
    NOTHING,
    TEMPLATE_HASH,
    Condition,
    Lenient,
    Metadata,
    fingerprint_of,
    selector_text,
    template_images,
)

__all__ = ["Failure", "Revision", "Service", "read_revisions", "read_service"]

_REVISION = "deployment.kubernetes.io/revision"
_REVISION_HISTORY = "deployment.kubernetes.io/revision-history"


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


class Failure(NamedTuple):
    """Why the controller gave up a rollout, in its words, and since when; empty if unknown."""

    reason: str
    message: str
    since: str = ""


class Service(NamedTuple):
    """A model service as the cluster shows it now.

    ``images`` has the images of the template by container, including init containers.
    ``revision`` grows with each new template; None until the controller has processed the object.
    ``complete`` means that all replicas have this revision and are available. ``rolled_out`` means
    that the controller completed this rollout, but a replica may be missing now. ``failure`` is set
    if the controller gave up the rollout; just after a rollback it is still the previous one.
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
    rolled_out: bool
    failure: Failure | None
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    selector: str


class Revision(NamedTuple):
    """A template of a service, and the revisions at which it was current.

    ``owner`` is the uid of the service; ``pods`` is the label selector of its pods.
    """

    owner: str
    fingerprint: str
    numbers: frozenset[int]
    pods: str


_decoder = msgspec.json.Decoder(_Workload)


def read_service(kind: str, body: bytes | msgspec.Raw) -> Service:
    """Decode a Deployment or DeploymentConfig; raises msgspec.DecodeError."""
    item = _decoder.decode(body)
    metadata, spec, status = item.metadata, item.spec, item.status
    annotations = metadata.annotations or {}
    if kind == "DeploymentConfig":
        revision = status.latest_version or None
    else:
        revision = _number(annotations.get(_REVISION))
    wanted = 1 if spec.replicas is None else spec.replicas
    progressing = next((c for c in status.conditions or () if c.type == "Progressing"), None)
    # The status says which generation it describes; an older one is not about this template.
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
        rolled_out=current and _rolled_out(wanted, status, progressing),
        failure=_failure(status, progressing) if current else None,
        labels=metadata.labels or {},
        annotations=annotations,
        selector=selector_text(kind, spec.selector),
    )


def _complete(
    kind: str, wanted: int, status: _WorkloadStatus, progressing: Condition | None
) -> bool:
    """Return what ``kubectl rollout status`` and ``oc rollout status`` would."""
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


def _rolled_out(wanted: int, status: _WorkloadStatus, progressing: Condition | None) -> bool:
    updated = status.updated_replicas or 0
    return (
        progressing is not None
        and progressing.status == "True"
        and progressing.reason in {"NewReplicaSetAvailable", "NewReplicationControllerAvailable"}
        and updated >= wanted
        and (status.replicas or 0) <= updated
    )


def _failure(status: _WorkloadStatus, progressing: Condition | None) -> Failure | None:
    if (
        progressing is None
        or progressing.status != "False"
        or progressing.reason not in {"ProgressDeadlineExceeded", "RolloutCancelled"}
    ):
        return None
    # The reason why pods cannot be created, such as a quota, is a separate condition.
    messages = [progressing.message or ""]
    messages += [
        condition.message or ""
        for condition in status.conditions or ()
        if condition.type == "ReplicaFailure" and condition.status == "True"
    ]
    return Failure(
        progressing.reason or "",
        "; ".join(filter(None, messages)),
        progressing.last_transition_time or "",
    )


def read_revisions(kind: str, items: Sequence[bytes | msgspec.Raw]) -> list[Revision]:
    """Decode the ReplicaSets of Deployments, or the ReplicationControllers of DeploymentConfigs.

    A ReplicaSet that a rollback uses again gets a new revision and keeps the old ones in an
    annotation; a ReplicationController always has one revision.
    """
    found = []
    for body in items:
        item = _decoder.decode(body)
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
