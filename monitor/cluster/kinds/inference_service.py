"""KServe's InferenceServices.

Sources: KServe's documentation and custom resource definition (serving.kserve.io/v1beta1).
"""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

import msgspec

from monitor.cluster.kinds.kind import Kind, Resource, condition_of, resource_service
from monitor.cluster.objects import (
    Condition,
    Container,
    Lenient,
    OwnMetadata,
    PodSpec,
    Template,
    decoder_of,
)
from monitor.cluster.services import Failure, Service

__all__ = ["INFERENCE_SERVICE"]

# Before `model`, each framework had a key of its own, with the same fields.
_FRAMEWORKS = (
    "model",
    "sklearn",
    "xgboost",
    "tensorflow",
    "pytorch",
    "triton",
    "onnx",
    "huggingface",
    "pmml",
    "lightgbm",
    "paddle",
)
# Changing these rolls out no other model.
_SCALING = frozenset(
    {"minReplicas", "maxReplicas", "scaleTarget", "scaleMetric", "canaryTrafficPercent"}
)


class _Traffic(Lenient):
    latest_revision: bool | None = None
    percent: int | None = None
    revision_name: str | None = None


class _Component(Lenient):
    traffic: list[_Traffic] | None = None
    latest_ready_revision: str | None = None


class _LoadFailure(Lenient):
    reason: str | None = None
    message: str | None = None
    time: str | None = None


class _ModelStatus(Lenient):
    transition_status: str | None = None
    last_failure_info: _LoadFailure | None = None


class _Status(Lenient):
    observed_generation: int | None = None
    conditions: list[Condition] | None = None
    components: dict[str, _Component] | None = None
    model_status: _ModelStatus | None = None


class _InferenceService(Lenient):
    metadata: OwnMetadata
    spec: dict[str, Any] = msgspec.field(default_factory=dict)
    status: _Status = msgspec.field(default_factory=_Status)


class _Storage(Lenient):
    path: str | None = None


class _Uri(Lenient):
    uri: str = ""


class _Model(Container):
    storage_uri: str | None = None
    storage_uris: list[_Uri] | None = None
    storage: _Storage | None = None

    def location(self) -> str | None:
        """Return where the model is: as a URI, several, or a path in a configured storage."""
        uris = ",".join(each.uri for each in self.storage_uris or ())
        return self.storage_uri or uris or (self.storage.path if self.storage else None)


_decode = decoder_of(_InferenceService)


class InferenceService(Kind):
    """An InferenceService; its version is by default the storageUri of its predictor's model."""

    name = "InferenceService"
    resource = Resource("serving.kserve.io", "v1beta1", "inferenceservices")
    has_pods: ClassVar[bool] = False

    def read(self, body: bytes | msgspec.Raw) -> Service:
        """Decode an InferenceService."""
        item = _decode(body)
        metadata, status = item.metadata, item.status
        predictor = item.spec.get("predictor")
        predictor = predictor if isinstance(predictor, dict) else {}
        spec, uri = _predictor(predictor)
        observed = status.observed_generation
        current = observed is None or observed >= (metadata.generation or 0)
        ready = condition_of(status.conditions, "Ready")
        model = status.model_status or _ModelStatus()
        settled = model.transition_status in {None, "", "UpToDate"}
        return resource_service(
            self.name,
            metadata,
            fingerprint=_fingerprint(item.spec),
            images=spec.images(),
            complete=current and settled and ready is not None and ready.status == "True",
            failure=_failure(model) if current else None,
            template=Template(spec=spec),
            version=uri,
            traffic_percent=_traffic((status.components or {}).get("predictor")),
        )


def _predictor(predictor: dict[str, Any]) -> tuple[PodSpec, str | None]:
    """Return the predictor's containers, of which its model is one, and the model's location."""
    spec = msgspec.convert(predictor, PodSpec)
    for key in _FRAMEWORKS:
        found = predictor.get(key)
        if isinstance(found, dict):
            model = msgspec.convert({"name": "kserve-container", **found}, _Model)
            if model.image is None:
                # The runtime's image is not the model's.
                return spec, model.location()
            return PodSpec(containers=[model, *(spec.containers or ())]), model.location()
    return spec, None


def _fingerprint(spec: dict[str, Any]) -> str:
    parts = {
        name: {key: value for key, value in part.items() if key not in _SCALING}
        for name, part in spec.items()
        if isinstance(part, dict)
    }
    content = msgspec.json.encode(parts, order="deterministic")
    return hashlib.blake2b(content, digest_size=12).hexdigest()


def _traffic(component: _Component | None) -> int | None:
    shares = component.traffic if component is not None else None
    if not shares:
        return None
    latest = component.latest_ready_revision if component is not None else None
    return sum(
        share.percent or 0
        for share in shares
        if share.latest_revision or (latest and share.revision_name == latest)
    )


def _failure(model: _ModelStatus) -> Failure | None:
    if model.transition_status not in {"BlockedByFailedLoad", "InvalidSpec"}:
        return None
    info = model.last_failure_info or _LoadFailure()
    return Failure(
        info.reason or model.transition_status or "", info.message or "", info.time or ""
    )


INFERENCE_SERVICE = InferenceService()
