"""Services of Knative Serving.

Sources: Knative's documentation and its API (serving.knative.dev/v1).
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from monitor.cluster.kinds.kind import Kind, Resource, condition_of, resource_service
from monitor.cluster.objects import (
    NOTHING,
    Condition,
    Lenient,
    OwnMetadata,
    decoder_of,
    fingerprint_of,
    read_template,
)
from monitor.cluster.services import Failure, Service

__all__ = ["KNATIVE_SERVICE"]


class _Traffic(Lenient):
    revision_name: str | None = None
    percent: int | None = None


class _Spec(Lenient):
    template: msgspec.Raw = NOTHING


class _Status(Lenient):
    observed_generation: int | None = None
    conditions: list[Condition] | None = None
    latest_created_revision_name: str | None = None
    latest_ready_revision_name: str | None = None
    traffic: list[_Traffic] | None = None


class _KnativeService(Lenient):
    metadata: OwnMetadata
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


_decode = decoder_of(_KnativeService)


class KnativeService(Kind):
    """A Knative Service: each change of its template is a revision, which gets traffic."""

    name = "KnativeService"
    resource = Resource("serving.knative.dev", "v1", "services")
    has_pods: ClassVar[bool] = False

    def read(self, body: bytes | msgspec.Raw) -> Service:
        """Decode a Knative Service."""
        item = _decode(body)
        metadata, status = item.metadata, item.status
        template = read_template(item.spec.template)
        current = (status.observed_generation or 0) >= (metadata.generation or 0)
        ready = condition_of(status.conditions, "Ready")
        latest = status.latest_ready_revision_name
        return resource_service(
            self.name,
            metadata,
            fingerprint=fingerprint_of(item.spec.template),
            images=template.spec.images(),
            complete=current
            and ready is not None
            and ready.status == "True"
            and bool(latest)
            and latest == status.latest_created_revision_name,
            failure=_failure(status, ready) if current else None,
            template=template,
            traffic_percent=_traffic(status, latest),
        )


def _traffic(status: _Status, latest: str | None) -> int | None:
    if not status.traffic:
        return None
    return sum(share.percent or 0 for share in status.traffic if share.revision_name == latest)


def _failure(status: _Status, ready: Condition | None) -> Failure | None:
    if ready is None or ready.status != "False":
        return None
    found = condition_of(status.conditions, "ConfigurationsReady")
    cause = found if found is not None and found.status == "False" else ready
    return Failure(cause.reason or "", cause.message or "", cause.last_transition_time or "")


KNATIVE_SERVICE = KnativeService()
