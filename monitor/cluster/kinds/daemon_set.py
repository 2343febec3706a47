"""DaemonSets.

Sources: the Kubernetes API reference (apps/v1), and what ``kubectl rollout status`` waits for.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from monitor.cluster.kinds.kind import Kind, Resource, read_workload, service_of
from monitor.cluster.services import Service

__all__ = ["DAEMON_SET"]


class DaemonSet(Kind):
    """A DaemonSet; its replicas are the nodes that it is meant for."""

    name = "DaemonSet"
    resource = Resource("apps", "v1", "daemonsets")
    optional: ClassVar[bool] = False

    def read(self, body: bytes | msgspec.Raw) -> Service:
        """Decode a DaemonSet."""
        item = read_workload(body)
        status = item.status
        wanted = status.desired_number_scheduled or 0
        updated = item.is_current() and (status.updated_number_scheduled or 0) >= wanted
        return service_of(
            self.name,
            item,
            complete=updated and (status.number_available or 0) >= wanted,
            rolled_out=updated,
            replicas_wanted=wanted,
            replicas_ready=status.number_ready or 0,
        )


DAEMON_SET = DaemonSet()
