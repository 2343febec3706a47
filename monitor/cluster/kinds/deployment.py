"""Deployments.

Sources: the Kubernetes API reference (apps/v1), and what ``kubectl rollout status`` waits for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from monitor.cluster.kinds.kind import (
    Kind,
    Resource,
    Workload,
    WorkloadStatus,
    condition_of,
    number_of,
    read_workload,
    replica_set_revisions,
    service_of,
)
from monitor.cluster.objects import TEMPLATE_HASH, Condition, instant
from monitor.cluster.services import Failure, Revision, Service

__all__ = ["DEPLOYMENT", "failure_of", "is_available", "is_rolled_out"]

_REVISION = "deployment.kubernetes.io/revision"
_DONE = frozenset({"NewReplicaSetAvailable", "NewReplicationControllerAvailable"})
_GIVEN_UP = frozenset({"ProgressDeadlineExceeded", "RolloutCancelled"})


class Deployment(Kind):
    """A Deployment, with its former templates in ReplicaSets."""

    name = "Deployment"
    resource = Resource("apps", "v1", "deployments")
    optional: ClassVar[bool] = False
    holder: ClassVar[Resource | None] = Resource("apps", "v1", "replicasets")

    def read(self, body: bytes | msgspec.Raw) -> Service:
        """Decode a Deployment."""
        item = read_workload(body)
        progressing = condition_of(item.status.conditions, "Progressing")
        # While it is paused, a changed template is not rolled out.
        current = item.is_current() and not item.spec.paused
        return service_of(
            self.name,
            item,
            revision=number_of((item.metadata.annotations or {}).get(_REVISION)),
            complete=current and is_available(item),
            rolled_out=current and is_rolled_out(item, progressing),
            failure=failure_of(item.status, progressing) if current else None,
            completed_at=instant(progressing.last_update_time) if progressing else None,
        )

    def read_revisions(self, items: Sequence[bytes | msgspec.Raw]) -> list[Revision]:
        """Decode ReplicaSets."""
        return replica_set_revisions(
            items, self.name, annotation=_REVISION, hash_label=TEMPLATE_HASH
        )


def is_available(item: Workload) -> bool:
    """Return whether all replicas have the new template and are available, and no others exist."""
    status = item.status
    updated = status.updated_replicas or 0
    return (
        updated >= item.wanted()
        and (status.replicas or 0) <= updated
        and (status.available_replicas or 0) >= updated
    )


def is_rolled_out(item: Workload, progressing: Condition | None) -> bool:
    """Return whether the controller completed the rollout, though a replica may be missing now."""
    updated = item.status.updated_replicas or 0
    return (
        progressing is not None
        and progressing.status == "True"
        and progressing.reason in _DONE
        and updated >= item.wanted()
        and (item.status.replicas or 0) <= updated
    )


def failure_of(status: WorkloadStatus, progressing: Condition | None) -> Failure | None:
    """Return why the controller gave up, if it did."""
    if progressing is None or progressing.status != "False" or progressing.reason not in _GIVEN_UP:
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


DEPLOYMENT = Deployment()
