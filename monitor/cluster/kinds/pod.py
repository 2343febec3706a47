"""Pods that nobody owns.

Source: the Kubernetes API reference (core/v1).
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from monitor.cluster.kinds.kind import PODS, Kind, Resource
from monitor.cluster.objects import Template, TemplateMetadata
from monitor.cluster.pods import Pod, read_pod, with_digest
from monitor.cluster.services import Service

__all__ = ["POD", "pod_service"]


class PodKind(Kind):
    """A pod as a service of its own, deployed when it is ready, and removed."""

    name = "Pod"
    resource: Resource = PODS
    optional: ClassVar[bool] = False
    has_pods: ClassVar[bool] = False

    def read(self, body: bytes | msgspec.Raw) -> Service | None:
        """Decode a pod, or return None for one that a workload owns."""
        pod = read_pod(body)
        return pod_service(pod) if pod.owner is None else None


def pod_service(pod: Pod) -> Service:
    """Return a pod that nobody owns as a service."""
    ready = pod.ready and not pod.terminating
    return Service(
        kind="Pod",
        namespace=pod.namespace,
        name=pod.name,
        uid=pod.uid,
        resource_version=pod.resource_version,
        generation=0,
        revision=None,
        fingerprint="as created",
        images={
            name: with_digest(image, pod.digests.get(name)) for name, image in pod.images.items()
        },
        replicas_wanted=1,
        replicas_ready=int(ready),
        complete=ready,
        rolled_out=ready,
        failure=None,
        labels=pod.labels,
        annotations=pod.annotations,
        template=Template(
            metadata=TemplateMetadata(labels=dict(pod.labels), annotations=dict(pod.annotations)),
            spec=pod.spec,
        ),
        created=pod.created,
    )


POD = PodKind()
