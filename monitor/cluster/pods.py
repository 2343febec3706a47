"""Reads Pods: their service, whether they are ready, and their images; pure.

Source: the Kubernetes API reference (core/v1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from monitor.cluster.objects import (
    CONFIG_NAME,
    TEMPLATE_HASH,
    Condition,
    Lenient,
    Metadata,
    PodSpec,
)

__all__ = ["DIGEST_PREFIX", "Pod", "read_pod"]

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
    """A pod; ``service`` is the kind and name of its Deployment or DeploymentConfig.

    ``digests`` has the digest of the running image by container, as ``sha256:...``, if known.
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


_decoder = msgspec.json.Decoder(_Pod)


def read_pod(body: bytes | msgspec.Raw) -> Pod:
    """Decode a Pod; raises msgspec.DecodeError."""
    item = _decoder.decode(body)
    metadata, status = item.metadata, item.status
    statuses = [*(status.init_container_statuses or ()), *(status.container_statuses or ())]
    digests = {}
    for container in statuses:
        # docker-pullable://registry/name@sha256:... or registry/name@sha256:...; an id without
        # a name is internal to the runtime, and unknown to a registry.
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
    """Return the service of a pod, from the names that the controllers assign."""
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
