"""StatefulSets.

Sources: the Kubernetes API reference (apps/v1), and what ``kubectl rollout status`` waits for; but
a rollout that a partition holds counts as complete only when all replicas have it.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from monitor.cluster.kinds.kind import Kind, Resource, WorkloadStatus, read_workload, service_of
from monitor.cluster.services import Service

__all__ = ["STATEFUL_SET"]


class StatefulSet(Kind):
    """A StatefulSet; its revisions have no numbers, so the generation takes their place."""

    name = "StatefulSet"
    resource = Resource("apps", "v1", "statefulsets")
    optional: ClassVar[bool] = False

    def read(self, body: bytes | msgspec.Raw) -> Service:
        """Decode a StatefulSet."""
        item = read_workload(body)
        current = item.is_current()
        hashed = item.status.update_revision
        # They differ from when another template comes until it is ready everywhere.
        updating = item.status.current_revision not in {None, hashed}
        return service_of(
            self.name,
            item,
            complete=current and _is_updated(item.wanted(), item.status, ready=True),
            rolled_out=(
                current and not updating and _is_updated(item.wanted(), item.status, ready=False)
            ),
            own_pods=f"controller-revision-hash={hashed}" if hashed else "",
        )


def _is_updated(wanted: int, status: WorkloadStatus, *, ready: bool) -> bool:
    return (
        (status.updated_replicas or 0) >= wanted
        and (status.replicas or 0) <= wanted
        and (not ready or (status.ready_replicas or 0) >= wanted)
    )


STATEFUL_SET = StatefulSet()
