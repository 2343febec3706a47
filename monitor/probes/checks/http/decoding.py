"""Content codings of a body, undone as browsers undo them; pure.

libcurl's own decoding is not used: it takes a body that breaks off for a whole one, and fails for
unknown names of codings, such as ``UTF-8``, which browsers ignore.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod

__all__ = ["ACCEPTED", "Decoder", "DecodingError", "decoders"]

ACCEPTED = "gzip, deflate"
"""The header Accept-Encoding for what is decoded here."""

_GZIP = ("gzip", "x-gzip")
_MAGIC = b"\x1f\x8b"
_MOST_CODINGS = 5
# Decompressed at once, so that a bomb is noticed before it fills the memory.
_PIECE_BYTES = 262_144


class DecodingError(Exception):
    """A body is not in its coding, or breaks off; ``str()`` says which."""


def decoders(header: str) -> list[Decoder]:
    """Return what decodes a body of this Content-Encoding, in this order.

    Without a coding, or with one that is unknown, the body is taken as it is.
    """
    names = [name.strip().lower() for name in header.split(",")]
    names = [name for name in names if name not in ("", "identity")]
    if len(names) > _MOST_CODINGS or not set(names) <= {*_GZIP, "deflate"}:
        return []
    return [_Gzip() if name in _GZIP else _Deflate() for name in reversed(names)]


class Decoder(ABC):
    """Undoes one coding, piece by piece."""

    def __init__(self) -> None:
        self._some = False

    def decoded(self, data: bytes, most: int) -> bytes:
        """Return what ``data`` decodes to, cut off after it has more than ``most`` bytes.

        Raises DecodingError.
        """
        self._some = self._some or bool(data)
        found: list[bytes] = []
        size = 0
        try:
            while size <= most:
                piece, data = self._next(data)
                if not piece and not data:
                    break
                found.append(piece)
                size += len(piece)
        except zlib.error:
            raise DecodingError(f"the body is not {self.name}") from None
        return b"".join(found)

    def finish(self) -> None:
        """Raise DecodingError unless the body is whole; an empty one is."""
        if self._some and not self.ended:
            raise DecodingError(f"the {self.name} body breaks off")

    name: str

    @property
    @abstractmethod
    def ended(self) -> bool:
        """Whether the coding's end has come."""

    @abstractmethod
    def _next(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the next piece, and what is left of the data; nothing of both at the end."""


class _Gzip(Decoder):
    """Members one after the other; padding after them is ignored. Source: RFC 1952."""

    name = "gzip"

    def __init__(self) -> None:
        super().__init__()
        self._inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
        # The bytes after a member: the beginning of the next one, or padding.
        self._after = b""

    @property
    def ended(self) -> bool:
        return self._inflater.eof

    def _next(self, data: bytes) -> tuple[bytes, bytes]:
        if self._inflater.eof:
            self._after += data
            if not self._after.startswith(_MAGIC):
                self._after = self._after[:2]
                return b"", b""
            data, self._after = self._after, b""
            self._inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
        piece = self._inflater.decompress(data, _PIECE_BYTES)
        if self._inflater.eof:
            return piece, self._inflater.unused_data
        return piece, self._inflater.unconsumed_tail


class _Deflate(Decoder):
    """With the header of RFC 1950, or without, as some servers send it."""

    name = "deflate"

    def __init__(self) -> None:
        super().__init__()
        self._inflater: zlib._Decompress | None = None
        self._begun = b""

    @property
    def ended(self) -> bool:
        return self._inflater is not None and self._inflater.eof

    def _next(self, data: bytes) -> tuple[bytes, bytes]:
        if self._inflater is None:
            self._begun += data
            if len(self._begun) < 2:
                return b"", b""
            data = self._begun
            first, second = data[0], data[1]
            headed = first & 15 == 8 and first >> 4 <= 7 and (first << 8 | second) % 31 == 0
            self._inflater = zlib.decompressobj(zlib.MAX_WBITS if headed else -zlib.MAX_WBITS)
        if self._inflater.eof:
            return b"", b""
        piece = self._inflater.decompress(data, _PIECE_BYTES)
        return piece, b"" if self._inflater.eof else self._inflater.unconsumed_tail
