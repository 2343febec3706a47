"""The kinds of objects that can be model services, one module each."""

from __future__ import annotations

from monitor.cluster.kinds.daemon_set import DAEMON_SET
from monitor.cluster.kinds.deployment import DEPLOYMENT
from monitor.cluster.kinds.deployment_config import DEPLOYMENT_CONFIG
from monitor.cluster.kinds.inference_service import INFERENCE_SERVICE
from monitor.cluster.kinds.kind import PODS, Kind, Resource
from monitor.cluster.kinds.knative_service import KNATIVE_SERVICE
from monitor.cluster.kinds.pod import POD
from monitor.cluster.kinds.replica_set import REPLICA_SET
from monitor.cluster.kinds.rollout import ROLLOUT
from monitor.cluster.kinds.stateful_set import STATEFUL_SET

__all__ = ["KINDS", "PODS", "Kind", "Resource"]

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        DEPLOYMENT,
        DEPLOYMENT_CONFIG,
        STATEFUL_SET,
        DAEMON_SET,
        REPLICA_SET,
        POD,
        ROLLOUT,
        INFERENCE_SERVICE,
        KNATIVE_SERVICE,
    )
}
