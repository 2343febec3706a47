"""The messages on the bus: results and model events, as JSON with CloudEvents attributes.

The value of a message is the plain JSON data, which any consumer can read. Its CloudEvents 1.0
attributes are headers named ``ce_`` and the attribute (the binary mode of the Kafka protocol
binding). All instants are seconds since the epoch, UTC; all durations are seconds.

Sources: CloudEvents 1.0.2 and its Kafka protocol binding; CDEvents 0.3 for the service types.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from msgspec import Meta

__all__ = [
    "RESULT_TYPE",
    "Image",
    "ModelEvent",
    "Outcome",
    "Phases",
    "Result",
    "cloud_event",
    "decode_model_event",
    "decode_result",
    "encode",
    "unwrap",
]

RESULT_TYPE = "org.recodex.monitor.result"

_Duration = Annotated[float, Meta(ge=0, le=1e9)]
# PostgreSQL, Python and JavaScript can all show 0001-01-01 to 9999-12-31.
_Instant = Annotated[float, Meta(ge=0, lt=253402300800)]
# A certificate may have expired before 1970. Sums of what has no limit overflow.
_Expiry = Annotated[float, Meta(ge=-62135596800, lt=253402300800)]
_Id = Annotated[int, Meta(ge=1, le=2**63 - 1)]
_INT_MAX = 2**31 - 1


class Phases(msgspec.Struct, frozen=True, gc=False):
    """How long each phase of a check took, over all redirects; a skipped phase is 0."""

    resolve: _Duration = 0.0
    connect: _Duration = 0.0
    tls: _Duration = 0.0
    processing: _Duration = 0.0
    transfer: _Duration = 0.0


class Outcome(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one attempt at a check found: the part of a result that the check itself fills."""

    up: Annotated[bool, Meta(description="whether the site answered as the job expects")]
    status: Annotated[
        Annotated[int, Meta(ge=0, le=999)] | None,
        Meta(description="the HTTP status (101 for websocket); null without an answer"),
    ] = None
    response_time: Annotated[
        _Duration | None,
        Meta(description="s, the sum of the phases; null without a complete answer"),
    ] = None
    duration: Annotated[_Duration, Meta(description="s, length of the last attempt")] = 0.0
    error: Annotated[
        str | None, Meta(description="null, or a stable word; details follow after a colon")
    ] = None
    matched: Annotated[
        bool | None,
        Meta(
            description="whether body_regexp matched, true where the job has none;"
            " null without a complete body"
        ),
    ] = None
    phases: Annotated[
        Phases,
        Meta(description="s of resolve, connect, tls, processing and transfer, over all redirects"),
    ] = Phases()
    certificate_expires_at: Annotated[
        _Expiry | None,
        Meta(
            description="the earliest expiry of the certificates that were verified,"
            " of all hosts on the way"
        ),
    ] = None
    degraded: Annotated[
        bool, Meta(description="whether the site is up, but not as well as the job asks for")
    ] = False
    chain_expires_at: Annotated[
        _Expiry | None,
        Meta(
            description="the earliest expiry of all certificates that were sent, including those"
            " that verification does not need"
        ),
    ] = None


# The one declaration of a result: its fields are the keys of the JSON, the columns of
# availability_result, the API's schema and the tables in the docs. A new field needs a default,
# because older producers do not send it; see docs/contributing/add-a-result-field.md. The class
# is not kw_only since msgspec puts keyword-only fields, as the Outcome's, after the others.
class Result(Outcome, frozen=True, gc=False):
    """What one run of a job found; ``(job_id, scheduled_at, location)`` identifies it."""

    job_id: Annotated[_Id, Meta(description="the job")]
    url: Annotated[str, Meta(description="what was checked, without a password")]
    scheduled_at: Annotated[_Instant, Meta(description="when the check was due")]
    checked_at: Annotated[_Instant, Meta(description="when the check started")]
    kind: Annotated[str, Meta(description="the job's kind of check")] = "http"
    producer: Annotated[_Id, Meta(description="the producer that ran the check")] = 1
    attempt: Annotated[
        int, Meta(ge=1, le=_INT_MAX, description="number of the last attempt, from 1")
    ] = 1
    missed: Annotated[
        int, Meta(ge=0, le=_INT_MAX, description="runs skipped just before this one")
    ] = 0
    location: Annotated[
        str,
        Meta(max_length=100, description="where the check ran; empty if the site has one location"),
    ] = ""
    quorum: Annotated[
        Annotated[int, Meta(ge=1, le=_INT_MAX)] | None,
        Meta(
            description="in how many locations a site must be down to be down; null: more than half"
        ),
    ] = None

    def headers(self) -> dict[str, str]:
        """Return the CloudEvents attributes of this result, as headers."""
        where = f"/locations/{quote(self.location, safe='')}" if self.location else ""
        return cloud_event(
            type=RESULT_TYPE,
            source=f"{where}/producers/{self.producer}",
            id=f"{self.job_id}-{self.scheduled_at}",
            time=self.checked_at,
        )


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """The image of a container before and after a change; None if it had no image then."""

    container: str
    before: str | None = None
    after: str | None = None


class ModelEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The data of a model event: what happened to one deployed model.

    Its CloudEvents type, id and source are in the headers. ``images`` are references, with the
    digest if it is known (``models/churn:1.4@sha256:...``). ``revision`` is that of the rollout,
    ``service`` the owner of a pod (``Deployment/churn``). ``reason`` and ``message`` are the
    controller's explanation of a failed rollout. ``changed_by`` and ``change_cause`` are who made
    the change and why, where the object says so, ``duration`` how long the rollout took in s,
    ``traffic_percent`` the share of the traffic that this version gets, where the object says so,
    ``link`` the object's page in the console. docs/reference/model-events.md lists the causes.
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
    changed_by: str | None = None
    change_cause: str | None = None
    duration: float | None = None
    traffic_percent: int | None = None
    link: str | None = None


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
_OPTIONAL: dict[type, set[str]] = {
    kind: {field.name for field in msgspec.structs.fields(kind) if not field.required}
    for kind in (Result, Phases)
}


class _Envelope(msgspec.Struct, frozen=True):
    """A CloudEvent in structured mode, as far as it is needed; null is as good as nothing."""

    specversion: str
    id: str | None = None
    source: str | None = None
    type: str | None = None
    time: str | None = None
    datacontenttype: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"")
    data_base64: str | None = None


_envelope_decoder = msgspec.json.Decoder(_Envelope)


def unwrap(value: bytes, headers: Mapping[str, str]) -> tuple[bytes, Mapping[str, str]]:
    """Return a message in structured mode as in binary mode; any other is returned as it is.

    Raises ValueError if the message is marked as structured and is not.
    """
    if "ce_specversion" in headers:
        return value, headers
    kind = next((text for name, text in headers.items() if name.lower() == "content-type"), "")
    if kind.partition(";")[0].strip().lower() != "application/cloudevents+json":
        return value, headers
    try:
        event = _envelope_decoder.decode(value)
        data = bytes(event.data)
        if event.data_base64 is not None:
            data = base64.b64decode(event.data_base64, validate=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, binascii.Error) as error:
        raise ValueError(f"not a CloudEvent: {error}") from None
    attributes = {
        "ce_specversion": event.specversion,
        "ce_id": event.id or "",
        "ce_source": event.source or "",
        "ce_type": event.type or "",
        "content-type": event.datacontenttype or "application/json",
    }
    return data, attributes | ({} if event.time is None else {"ce_time": event.time})


def encode(message: Result | ModelEvent | Mapping[str, Any]) -> bytes:
    """Encode a message's value as JSON."""
    return _encoder.encode(message)


def decode_result(value: bytes) -> Result:
    """Decode a result; null in a field with a default means the default.

    Raises msgspec.DecodeError, which includes a ValidationError for the wrong fields or values.
    """
    try:
        return _result_decoder.decode(value)
    except msgspec.ValidationError:
        # Other programs may send null for a value that they do not know. This daemon's producers
        # do not, so their results are decoded only once.
        found = msgspec.json.decode(value)
        if not isinstance(found, dict):
            raise
        known = _without_nulls(found, Result)
        if isinstance(known.get("phases"), dict):
            known["phases"] = _without_nulls(known["phases"], Phases)
        return msgspec.convert(known, Result)


def _without_nulls(fields: Mapping[str, Any], kind: type) -> dict[str, Any]:
    optional = _OPTIONAL[kind]
    return {
        name: value for name, value in fields.items() if value is not None or name not in optional
    }


def decode_model_event(value: bytes) -> ModelEvent:
    """Decode the data of a model event; raise msgspec.DecodeError, even for invalid data."""
    return _model_event_decoder.decode(value)
