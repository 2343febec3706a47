"""What travels on the bus: results and model events, as JSON with CloudEvents attributes.

A message's value is the plain JSON data, so that any consumer can read it. Its CloudEvents
1.0 attributes go beside it as headers (the Kafka protocol binding's binary mode: ``ce_`` and
the attribute's name). All instants are seconds since the epoch, UTC; all durations seconds.

Sources: CloudEvents 1.0.2 and its Kafka protocol binding; CDEvents 0.3 for the service types.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

__all__ = [
    "RESULT_TYPE",
    "Image",
    "ModelEvent",
    "Phases",
    "Result",
    "cloud_event",
    "decode_model_event",
    "decode_result",
    "encode",
]

RESULT_TYPE = "org.recodex.monitor.result"

_Duration = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
# 0001-01-01 to 9999-12-31 is what PostgreSQL, Python and JavaScript all can show.
_Instant = Annotated[float, msgspec.Meta(ge=0, lt=253402300800)]
_Id = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class Phases(msgspec.Struct, frozen=True, gc=False):
    """How long each phase of a check took, over all redirects; a phase that wasn't is 0."""

    resolve: _Duration = 0.0
    connect: _Duration = 0.0
    tls: _Duration = 0.0
    processing: _Duration = 0.0
    transfer: _Duration = 0.0


class Result(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one run of a job found; ``(job_id, scheduled_at)`` names it.

    ``status`` is None where nothing answered, ``response_time`` None unless a whole answer
    came, ``matched`` None where there was no whole body to match (True where nothing had to
    match). ``error`` starts with a stable word and, after ``: ``, has the details. What older
    producers may leave out has a default.
    """

    job_id: _Id
    url: str
    scheduled_at: _Instant
    checked_at: _Instant
    kind: str = "http"
    up: bool
    status: Annotated[int, msgspec.Meta(ge=0, le=999)] | None = None
    response_time: _Duration | None = None
    duration: _Duration = 0.0
    error: str | None = None
    matched: bool | None = None
    phases: Phases = Phases()
    certificate_expires_at: float | None = None
    producer: _Id = 1
    attempt: Annotated[int, msgspec.Meta(ge=1)] = 1
    missed: Annotated[int, msgspec.Meta(ge=0)] = 0

    def headers(self) -> dict[str, str]:
        """Return the CloudEvents attributes that go with this result."""
        return cloud_event(
            type=RESULT_TYPE,
            source=f"/producers/{self.producer}",
            id=f"{self.job_id}-{self.scheduled_at}",
            time=self.checked_at,
        )


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """A container's image with its digest, before and after a change; None where it wasn't."""

    container: str
    before: str | None = None
    after: str | None = None


class ModelEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The data of a model event: what happened to one deployed model.

    Its CloudEvents type, id and source go in the headers. ``images`` are references with the
    digest where it is known (``models/churn:1.4@sha256:...``). ``revision`` is the rollout's,
    ``service`` (``Deployment/churn``) what a pod is of, ``reason`` and ``message`` are the
    controller's words on a rollout that failed. docs/reference/model-events.md has the causes.
    """

    cluster: str
    namespace: str
    kind: str
    name: str
    uid: str = ""
    service: str | None = None
    model: str | None = None
    version: str | None = None
    previous_version: str | None = None
    images: tuple[Image, ...] = ()
    revision: int | None = None
    replicas_wanted: int | None = None
    replicas_ready: int | None = None
    cause: str
    reason: str | None = None
    message: str | None = None
    catch_up: bool = False


def cloud_event(*, type: str, source: str, id: str, time: float) -> dict[str, str]:
    """Return the headers of a CloudEvents 1.0 message in binary mode with a JSON value."""
    return {
        "ce_specversion": "1.0",
        "ce_id": id,
        "ce_source": source,
        "ce_type": type,
        "ce_time": datetime.fromtimestamp(time, UTC).isoformat().replace("+00:00", "Z"),
        "content-type": "application/json",
    }


_encoder = msgspec.json.Encoder()
_result_decoder = msgspec.json.Decoder(Result)
_model_event_decoder = msgspec.json.Decoder(ModelEvent)


def encode(message: Result | ModelEvent | Mapping[str, Any]) -> bytes:
    """Encode a message's value as JSON."""
    return _encoder.encode(message)


def decode_result(value: bytes) -> Result:
    """Decode a result; raise msgspec.DecodeError (also for what doesn't validate)."""
    return _result_decoder.decode(value)


def decode_model_event(value: bytes) -> ModelEvent:
    """Decode a model event's data; raise msgspec.DecodeError (also for what doesn't validate)."""
    return _model_event_decoder.decode(value)
