"""Common fields of API objects, pod templates, and the envelopes of lists and watches; pure.

Decoding skips other fields, so a page of objects costs little more memory than its bytes, and new
fields of newer servers are ignored.

Source: the Kubernetes API reference (meta/v1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import msgspec

__all__ = [
    "CONFIG_NAME",
    "CONFIG_VERSION",
    "NOTHING",
    "ROLLOUT_HASH",
    "TEMPLATE_HASH",
    "UNREADABLE",
    "Condition",
    "Container",
    "Lenient",
    "Managed",
    "Metadata",
    "OwnMetadata",
    "Owner",
    "Page",
    "PodSpec",
    "Template",
    "TemplateMetadata",
    "WatchEvent",
    "decoder_of",
    "fingerprint_of",
    "fingerprint_of_text",
    "instant",
    "read_metadata",
    "read_page",
    "read_template",
    "read_uid",
    "read_watch_event",
    "selector_text",
]

_Type = TypeVar("_Type")

NOTHING = msgspec.Raw(b"null")
# What decoding raises for JSON that is malformed, no UTF-8, or nested too deeply.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

TEMPLATE_HASH = "pod-template-hash"
ROLLOUT_HASH = "rollouts-pod-template-hash"
CONFIG_NAME = "openshift.io/deployment-config.name"
CONFIG_VERSION = "openshift.io/deployment-config.latest-version"
# Labels and annotations that controllers add to the template of a copy.
_ADDED_LABELS = frozenset({TEMPLATE_HASH, ROLLOUT_HASH, "deployment", "deploymentconfig"})
_ADDED_ANNOTATIONS = frozenset({CONFIG_NAME, CONFIG_VERSION, "openshift.io/deployment.name"})


def decoder_of(type_: type[_Type]) -> Callable[[bytes | msgspec.Raw], _Type]:
    """Return a decoder that takes a null as a missing field; it raises msgspec.DecodeError."""
    decode = msgspec.json.Decoder(type_).decode

    def read(body: bytes | msgspec.Raw) -> _Type:
        try:
            return decode(body)
        except msgspec.ValidationError:
            # Rare: some controllers write null for what they do not know.
            found = _without_nulls(msgspec.json.decode(body))
            return decode(msgspec.json.encode({} if found is None else found))

    return read


def _without_nulls(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: _without_nulls(each) for key, each in found.items() if each is not None}
    if isinstance(found, list):
        return [_without_nulls(each) for each in found if each is not None]
    return found


class Lenient(msgspec.Struct, rename="camel", kw_only=True):
    """A struct of the API: empty fields are missing, or sometimes null."""


class Owner(Lenient):
    """An entry of ownerReferences."""

    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


class Managed(Lenient):
    """An entry of managedFields: who wrote which fields, when."""

    manager: str = ""
    subresource: str | None = None
    time: str | None = None
    fields_v1: msgspec.Raw = NOTHING


class Metadata(Lenient):
    """An object's metadata."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[Owner] | None = None

    def controller(self) -> Owner | None:
        """Return the owner that controls the object, if any."""
        owners = self.owner_references or ()
        return next((owner for owner in owners if owner.controller is not False), None)


class OwnMetadata(Metadata):
    """An object's metadata with those who wrote it."""

    managed_fields: list[Managed] | None = None


class Condition(Lenient):
    """A condition of a workload or a pod."""

    type: str = ""
    status: str = ""
    reason: str | None = None
    message: str | None = None
    last_transition_time: str | None = None
    last_update_time: str | None = None


class _PageMetadata(Lenient):
    resource_version: str = ""
    continue_: str | None = msgspec.field(default=None, name="continue")


class Page(Lenient):
    """One page of a list; ``items`` are not decoded."""

    metadata: _PageMetadata = msgspec.field(default_factory=_PageMetadata)
    items: list[msgspec.Raw] | None = None


class _AnyObject(Lenient):
    metadata: Metadata = msgspec.field(default_factory=Metadata)
    code: int | None = None
    reason: str | None = None
    message: str | None = None


class WatchEvent(Lenient):
    """One event of a watch: ADDED, MODIFIED, DELETED, BOOKMARK or ERROR."""

    type: str
    object: msgspec.Raw

    def metadata(self) -> Metadata:
        """Return the metadata of the object."""
        return read_metadata(self.object)

    def status(self) -> tuple[int, str]:
        """Return code and message of the Status of an ERROR."""
        status = _read_any(self.object)
        gone = status.reason in {"Expired", "Gone"}
        code = status.code or (410 if gone else 500)
        return code, status.message or status.reason or "no reason given"


_read_any = decoder_of(_AnyObject)

read_page = decoder_of(Page)
read_watch_event = msgspec.json.Decoder(WatchEvent).decode


def read_metadata(body: bytes | msgspec.Raw) -> Metadata:
    """Decode only the metadata of an object; raises msgspec.DecodeError."""
    return _read_any(body).metadata


def read_uid(body: bytes | msgspec.Raw) -> str:
    """Return the uid of an object; raises msgspec.DecodeError, even if it only lacks one."""
    uid = read_metadata(body).uid
    if not uid:
        raise msgspec.ValidationError("it has no metadata.uid")
    return uid


class _Variable(Lenient):
    name: str = ""
    value: str | None = None


class Container(Lenient):
    """A container of a template; variables whose value stands elsewhere have none."""

    name: str = ""
    image: str | None = None
    command: list[str] | None = None
    args: list[str] | None = None
    env: list[_Variable] | None = None


class PodSpec(Lenient):
    """The spec of a pod or of its template."""

    containers: list[Container] | None = None
    init_containers: list[Container] | None = None

    def all_containers(self) -> list[Container]:
        """Return the containers, init containers last."""
        return [*(self.containers or ()), *(self.init_containers or ())]

    def images(self) -> dict[str, str]:
        """Return the images by container, init containers last."""
        return {container.name: container.image or "" for container in self.all_containers()}


class TemplateMetadata(Lenient):
    """The metadata of a template, or of a pod as its own template."""

    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class Template(Lenient):
    """A pod template, as far as models are concerned."""

    metadata: TemplateMetadata = msgspec.field(default_factory=TemplateMetadata)
    spec: PodSpec = msgspec.field(default_factory=PodSpec)


class _AnyTemplate(Lenient):
    metadata: TemplateMetadata | None = None
    spec: PodSpec | None = None


class _LabelSelector(Lenient):
    match_labels: dict[str, str] | None = None


_decode_template = decoder_of(_AnyTemplate)
_decode_whole = msgspec.json.Decoder(dict[str, Any] | None).decode
_decode_selector = decoder_of(_LabelSelector)
_decode_map = decoder_of(dict[str, str])


def read_template(body: bytes | msgspec.Raw) -> Template:
    """Return a pod template, empty where it is null; raises msgspec.DecodeError."""
    found = _decode_template(body)
    return Template(metadata=found.metadata or TemplateMetadata(), spec=found.spec or PodSpec())


def fingerprint_of(body: msgspec.Raw) -> str:
    """Return a digest of a pod template, without the additions of controllers in its copies.

    Raises msgspec.DecodeError.
    """
    known = read_template(body).metadata
    plain = _decode_whole(body) or {}
    metadata = dict(plain.pop("metadata", None) or {})
    metadata.pop("creationTimestamp", None)
    for key, values, added in (
        ("labels", known.labels, _ADDED_LABELS),
        ("annotations", known.annotations, _ADDED_ANNOTATIONS),
    ):
        metadata.pop(key, None)
        kept = {name: value for name, value in (values or {}).items() if name not in added}
        if kept:
            metadata[key] = kept
    if metadata:
        plain["metadata"] = metadata
    return fingerprint_of_text(msgspec.json.encode(plain, order="deterministic").decode())


def fingerprint_of_text(text: str) -> str:
    """Return a digest of a text."""
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def selector_text(body: msgspec.Raw, *, is_map: bool = False) -> str:
    """Return the labels a workload selects, as the API's ``labelSelector`` parameter.

    They are in a LabelSelector, or for a DeploymentConfig a map. The expressions of a
    LabelSelector are left out: the result only narrows lists whose objects name their owner. Raises
    msgspec.DecodeError.
    """
    labels = _decode_map(body) if is_map else _decode_selector(body).match_labels or {}
    return ",".join(f"{key}={value}" for key, value in labels.items())


def instant(text: str | None) -> float | None:
    """Return a time of the API in s since the epoch; None if it is missing or no time."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except (ValueError, OverflowError):
        return None
