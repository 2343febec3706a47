"""ReplicaSets that nobody owns.

Source: the Kubernetes API reference (apps/v1).
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from monitor.cluster.kinds.kind import Kind, Resource, read_workload, service_of
from monitor.cluster.services import Service

__all__ = ["REPLICA_SET"]


class ReplicaSet(Kind):
    """A ReplicaSet, deployed and removed: a changed template does not replace its pods."""

    name = "ReplicaSet"
    resource = Resource("apps", "v1", "replicasets")
    optional: ClassVar[bool] = False

    def read(self, body: bytes | msgspec.Raw) -> Service | None:
        """Decode a ReplicaSet, or return None for that of a Deployment or a Rollout."""
        item = read_workload(body)
        if item.metadata.controller() is not None:
            return None
        status, wanted = item.status, item.wanted()
        current = item.is_current() and (status.replicas or 0) == wanted
        return service_of(
            self.name,
            item,
            complete=current and (status.available_replicas or 0) >= wanted,
            rolled_out=current,
            fingerprint="as created",
        )


REPLICA_SET = ReplicaSet()
