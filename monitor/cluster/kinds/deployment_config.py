"""OpenShift's DeploymentConfigs.

Sources: OpenShift's apps.openshift.io/v1, and what ``oc rollout status`` waits for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from monitor.cluster.kinds.deployment import failure_of, is_available, is_rolled_out
from monitor.cluster.kinds.kind import (
    Kind,
    Resource,
    condition_of,
    number_of,
    read_workload,
    service_of,
)
from monitor.cluster.objects import CONFIG_VERSION, fingerprint_of, instant, selector_text
from monitor.cluster.services import Revision, Service

__all__ = ["DEPLOYMENT_CONFIG"]


class DeploymentConfig(Kind):
    """A DeploymentConfig, with its former templates in ReplicationControllers."""

    name = "DeploymentConfig"
    resource = Resource("apps.openshift.io", "v1", "deploymentconfigs")
    holder: ClassVar[Resource | None] = Resource("", "v1", "replicationcontrollers")

    def read(self, body: bytes | msgspec.Raw) -> Service:
        """Decode a DeploymentConfig."""
        item = read_workload(body)
        status = item.status
        progressing = condition_of(status.conditions, "Progressing")
        current = item.is_current()
        done = (
            bool(status.latest_version)
            and progressing is not None
            and progressing.reason == "NewReplicationControllerAvailable"
        )
        return service_of(
            self.name,
            item,
            revision=status.latest_version or None,
            complete=current and done and is_available(item),
            rolled_out=current and is_rolled_out(item, progressing),
            failure=failure_of(status, progressing) if current else None,
            selector=selector_text(item.spec.selector, is_map=True),
            completed_at=instant(progressing.last_update_time) if progressing else None,
        )

    def read_revisions(self, items: Sequence[bytes | msgspec.Raw]) -> list[Revision]:
        """Decode ReplicationControllers, which have one revision each."""
        found = []
        for body in items:
            item = read_workload(body)
            number = number_of((item.metadata.annotations or {}).get(CONFIG_VERSION))
            if number is None:
                continue
            pods = f"deployment={item.metadata.name}"
            fingerprint = fingerprint_of(item.spec.template)
            found += [
                Revision(owner.uid, fingerprint, frozenset({number}), pods)
                for owner in item.metadata.owner_references or ()
                if owner.kind == self.name
            ]
        return found


DEPLOYMENT_CONFIG = DeploymentConfig()
