"""Reads names and dates of X.509 certificates; pure. Source: RFC 5280, 4.1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

__all__ = ["Certificate"]


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a path is made of: names in DER, and dates in epoch s."""

    subject: bytes
    issuer: bytes
    expires_at: float

    @classmethod
    def read(cls, certificate: bytes) -> Certificate | None:
        """Read a certificate in DER; None for one without valid dates."""
        return _read(certificate)


@lru_cache(maxsize=4096)
def _read(certificate: bytes) -> Certificate | None:
    try:
        ((_, whole),) = _elements(certificate)
        (_, signed), *_ = _elements(whole)
        # After the version, which may be absent: serial number, signature, issuer, validity,
        # subject.
        fields = [content for tag, content in _elements(signed) if tag != 0xA0]
        _, (tag, text) = _elements(fields[3])
        date = text.decode("ascii")
        if tag == 0x17:  # UTCTime has two digits of the year, from 1950 on
            date = f"{'19' if date >= '50' else '20'}{date}"
        expires = datetime.strptime(date, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
        return Certificate(fields[4], fields[2], expires)
    except (ValueError, IndexError):
        return None


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the tag and the content of each element in DER ``data``."""
    while data:
        tag, length, start = data[0], data[1], 2
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(data[2:start], "big")
        yield tag, data[start : start + length]
        data = data[start + length :]
