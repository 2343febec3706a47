"""Rollouts of Argo Rollouts.

Sources: its documentation and custom resource definition (argoproj.io/v1alpha1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from monitor.cluster.kinds.kind import (
    Kind,
    Resource,
    WorkloadSpec,
    condition_of,
    number_of,
    replica_set_revisions,
    service_of,
)
from monitor.cluster.objects import (
    NOTHING,
    ROLLOUT_HASH,
    Condition,
    Lenient,
    OwnMetadata,
    decoder_of,
    fingerprint_of,
)
from monitor.cluster.services import Failure, Revision, Service

__all__ = ["ROLLOUT"]

_REVISION = "rollout.argoproj.io/revision"


class _Status(Lenient):
    # A text; older versions had a hash here.
    observed_generation: str | int | None = None
    phase: str | None = None
    message: str | None = None
    replicas: int | None = None
    updated_replicas: int | None = None
    ready_replicas: int | None = None
    available_replicas: int | None = None
    current_pod_hash: str | None = None
    stable_rs: str | None = msgspec.field(default=None, name="stableRS")
    abort: bool | None = None
    conditions: list[Condition] | None = None


class _Rollout(Lenient):
    metadata: OwnMetadata
    spec: WorkloadSpec = msgspec.field(default_factory=WorkloadSpec)
    status: _Status = msgspec.field(default_factory=_Status)

    def is_current(self) -> bool:
        observed = self.status.observed_generation
        number = observed if isinstance(observed, int) else number_of(observed)
        return number is None or number >= (self.metadata.generation or 0)

    def wanted(self) -> int:
        return 1 if self.spec.replicas is None else self.spec.replicas


_decode = decoder_of(_Rollout)


class Rollout(Kind):
    """A Rollout: rolled out once its new ReplicaSet is the stable one, after all canary steps."""

    name = "Rollout"
    resource = Resource("argoproj.io", "v1alpha1", "rollouts")
    holder: ClassVar[Resource | None] = Resource("apps", "v1", "replicasets")

    def read(self, body: bytes | msgspec.Raw) -> Service:
        """Decode a Rollout."""
        item = _decode(body)
        status = item.status
        current = item.is_current() and bool(status.current_pod_hash)
        stable = current and status.stable_rs == status.current_pod_hash
        # With a workloadRef the template is in another object; its hash is here.
        has_template = bytes(item.spec.template) != bytes(NOTHING)
        own = f"{ROLLOUT_HASH}={status.current_pod_hash}" if status.current_pod_hash else ""
        fingerprint = fingerprint_of(item.spec.template) if has_template else own
        return service_of(
            self.name,
            item,  # type: ignore[arg-type] # its status differs in one type
            revision=number_of((item.metadata.annotations or {}).get(_REVISION)),
            complete=stable and status.phase in {None, "Healthy"} and _is_available(item),
            rolled_out=stable and status.phase != "Paused",
            failure=_failure(status) if current else None,
            fingerprint=fingerprint,
            own_pods=own,
        )

    def read_revisions(self, items: Sequence[bytes | msgspec.Raw]) -> list[Revision]:
        """Decode ReplicaSets."""
        return replica_set_revisions(
            items, self.name, annotation=_REVISION, hash_label=ROLLOUT_HASH
        )


def _is_available(item: _Rollout) -> bool:
    return (item.status.available_replicas or 0) >= item.wanted()


def _failure(status: _Status) -> Failure | None:
    if status.phase != "Degraded" and not status.abort:
        return None
    progressing = condition_of(status.conditions, "Progressing") or Condition()
    return Failure(
        progressing.reason or ("RolloutAborted" if status.abort else "Degraded"),
        status.message or progressing.message or "",
        progressing.last_transition_time or "",
    )


ROLLOUT = Rollout()
