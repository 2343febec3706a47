"""Common fields of API objects, and the envelopes of lists and watches; pure.

Decoding skips other fields, so a page of objects costs little more memory than its bytes, and new
fields of newer servers are ignored.

Source: the Kubernetes API reference (meta/v1).
"""

from __future__ import annotations

import msgspec

from monitor.cluster.templates import Lenient

__all__ = [
    "Condition",
    "Metadata",
    "Owner",
    "Page",
    "WatchEvent",
    "read_metadata",
    "read_page",
    "read_watch_event",
]


class Owner(Lenient):
    """An entry of ownerReferences."""

    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


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


class Condition(Lenient):
    """A condition of a workload or a pod."""

    type: str = ""
    status: str = ""
    reason: str | None = None
    message: str | None = None
    last_transition_time: str | None = None


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

    def resource_version(self) -> str:
        """Return the resource version of the object."""
        return _any_decoder.decode(self.object).metadata.resource_version

    def uid(self) -> str:
        """Return the uid of the object."""
        return _any_decoder.decode(self.object).metadata.uid

    def status(self) -> tuple[int, str]:
        """Return code and message of the Status of an ERROR."""
        status = _any_decoder.decode(self.object)
        return status.code or 500, status.message or status.reason or "no reason given"


_any_decoder = msgspec.json.Decoder(_AnyObject)

read_page = msgspec.json.Decoder(Page).decode
read_watch_event = msgspec.json.Decoder(WatchEvent).decode


def read_metadata(body: bytes | msgspec.Raw) -> Metadata:
    """Decode only the metadata of an object; raises msgspec.DecodeError."""
    return _any_decoder.decode(body).metadata
