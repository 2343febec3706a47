"""A digest that distinguishes uploads with the same ``upload_id``. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec
from msgspec import Raw

from monitor.logs.entries import DECODING_ERRORS

__all__ = ["UploadDigest"]

_DIGEST_BYTES = 16
_NOTHING = Raw()


class _Entry(msgspec.Struct, gc=False):
    level: str | int
    message: str
    sender: str | None = None


class _Values(msgspec.Struct, gc=False):
    level: Raw = _NOTHING
    message: Raw = _NOTHING
    sender: Raw = _NOTHING


_decode = msgspec.json.Decoder(_Entry).decode
_decode_values = msgspec.json.Decoder(_Values).decode
_encode = msgspec.json.Encoder().encode


class UploadDigest:
    """A BLAKE2b digest of the entries of an upload as they were sent, accepted or not.

    A client may encode a repeat differently. So the digest does not depend on the order of keys,
    spaces and escapes, on keys that do not belong to an entry (a message that is an entry itself
    has ``id`` and ``token``), or on ``time``, which some clients set at each try.
    """

    __slots__ = ("_hash",)

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=_DIGEST_BYTES)

    def add(self, items: Iterable[bytes | Raw]) -> None:
        """Add entries, each as JSON."""
        for item in items:
            text = _canonical(item)
            self._hash.update(b"%d:" % len(text))
            self._hash.update(text)

    def text(self) -> str:
        """Return the digest of all entries so far, in hexadecimal."""
        return self._hash.hexdigest()


def _canonical(item: bytes | Raw) -> bytes:
    try:
        return _encode(_decode(item))
    except DECODING_ERRORS:
        pass
    try:
        values = _decode_values(item)
    except DECODING_ERRORS:
        return bytes(item)
    return b",".join(map(bytes, (values.level, values.message, values.sender)))
