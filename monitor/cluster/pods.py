"""Reads Pods: their service, whether they are ready, and their images; pure.

Source: the Kubernetes API reference (core/v1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from monitor.cluster.objects import (
    CONFIG_NAME,
    ROLLOUT_HASH,
    TEMPLATE_HASH,
    Condition,
    Lenient,
    Metadata,
    Owner,
    PodSpec,
    decoder_of,
)

__all__ = ["DIGEST_PREFIX", "Pod", "read_pod", "with_digest"]

DIGEST_PREFIX = "@sha256:"


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


class Pod(NamedTuple):
    """A pod; ``service`` is the kind and name of the workload that it provably belongs to.

    ``owner`` is the kind and name of its controller, None if nobody owns it. ``digests`` has the
    digest of the running image by container, as ``sha256:...``, if known.
    """

    namespace: str
    name: str
    uid: str
    resource_version: str
    created: str
    owner: tuple[str, str] | None
    service: tuple[str, str] | None
    ready: bool
    terminating: bool
    images: dict[str, str]
    digests: dict[str, str]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    spec: PodSpec


_decode = decoder_of(_Pod)


def read_pod(body: bytes | msgspec.Raw) -> Pod:
    """Decode a Pod; raises msgspec.DecodeError."""
    item = _decode(body)
    metadata, status = item.metadata, item.status
    statuses = [*(status.init_container_statuses or ()), *(status.container_statuses or ())]
    digests = {}
    for container in statuses:
        # docker-pullable://registry/name@sha256:... or registry/name@sha256:...; an id without
        # a name is internal to the runtime, and unknown to a registry.
        _, at, digest = (container.image_id or "").rpartition(DIGEST_PREFIX)
        if at:
            digests[container.name] = f"sha256:{digest}"
    owner = metadata.controller()
    return Pod(
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        resource_version=metadata.resource_version,
        created=metadata.creation_timestamp or "",
        owner=None if owner is None else (owner.kind, owner.name),
        service=_service_of(metadata, owner),
        ready=any(c.type == "Ready" and c.status == "True" for c in status.conditions or ()),
        terminating=metadata.deletion_timestamp is not None,
        images=item.spec.images(),
        digests=digests,
        labels=metadata.labels or {},
        annotations=metadata.annotations or {},
        spec=item.spec,
    )


def with_digest(image: str, digest: str | None) -> str:
    """Return the image with its digest, if one is known and the image has none."""
    return image if "@" in image or not digest else f"{image}@{digest}"


def _service_of(metadata: Metadata, owner: Owner | None) -> tuple[str, str] | None:
    """Return the service of a pod, from the names and labels that the controllers assign.

    A ReplicaSet may have any name; only the hash in its label proves that the rest of the name is
    that of a Deployment or a Rollout.
    """
    labels, annotations = metadata.labels or {}, metadata.annotations or {}
    if owner is None:
        return None
    match owner.kind:
        case "ReplicaSet":
            for label, kind in ((ROLLOUT_HASH, "Rollout"), (TEMPLATE_HASH, "Deployment")):
                hashed = labels.get(label)
                if hashed and owner.name.endswith(f"-{hashed}"):
                    name = owner.name.removesuffix(f"-{hashed}")
                    return (kind, name) if name else None
        case "ReplicationController":
            config = annotations.get(CONFIG_NAME) or labels.get("deploymentconfig")
            return ("DeploymentConfig", config) if config else None
        case "StatefulSet" | "DaemonSet":
            return owner.kind, owner.name
    return None
