"""The body of an answer as it comes, decoded and bounded."""

from __future__ import annotations

from collections.abc import Sequence

from monitor.probes.checks.http.answer_headers import header_values, redirect_target
from monitor.probes.checks.http.decoding import Decoder, DecodingError, decoders

__all__ = ["Body"]


class Body:
    """Takes a body piece by piece, up to a limit in bytes after its decoding.

    ``lines`` are those of the last answer's header, complete with the first piece; those before it
    are of a proxy, or interim (1xx). With ``follow`` a redirect ends the transfer with its header,
    and :attr:`target` is where it leads: browsers do not wait for its body either.
    """

    __slots__ = (
        "_decode",
        "_decoders",
        "_error",
        "_follow",
        "_keep",
        "_limit",
        "_pieces",
        "_size",
        "_stream",
        "lines",
        "target",
    )

    def __init__(
        self, limit: int, *, keep: bool, decode: bool, stream: bool, follow: bool = False
    ) -> None:
        self.lines: list[bytes] = []
        self.target: bytes | None = None
        self._follow = follow
        self._limit = limit
        self._keep = keep
        self._decode = decode
        self._stream = stream
        self._decoders: Sequence[Decoder] | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._error: str | None = None

    def header(self, line: bytes) -> int | None:
        """Take a line of a header; a result other than None makes libcurl stop."""
        if line.startswith(b"HTTP/"):
            self.lines.clear()
        self.lines.append(line)
        if len(line) > len(b"\r\n") or not self._follow:
            return None
        self.target = redirect_target(self.lines)
        return None if self.target is None else -1

    def write(self, piece: bytes) -> int | None:
        """Take a piece; a result other than its size or None makes libcurl stop."""
        if self._stream:
            self._size += len(piece)
            return -1
        if self._decoders is None:
            self._decoders = self._chosen()
        try:
            for decoder in self._decoders:
                piece = decoder.decoded(piece, self._limit)
        except DecodingError as error:
            self._error = f"bad-answer: {error}"
            return -1
        self._size += len(piece)
        if self._size > self._limit:
            self._error = f"body-too-large: longer than {self._limit} bytes"
            return -1
        if self._keep:
            self._pieces.append(piece)
        return None

    def _chosen(self) -> Sequence[Decoder]:
        if not self._decode:
            return ()
        values = header_values(self.lines, "content-encoding")
        return decoders(b",".join(values).decode("latin-1")) if values else ()

    @property
    def streaming(self) -> bool:
        """Whether the first byte of a stream came, which ended the transfer."""
        return self._stream and self._size > 0

    @property
    def error(self) -> str | None:
        """What made libcurl stop: too much, or not in its coding."""
        return self._error

    def finish(self) -> str | None:
        """Return what is wrong with a body that has come to its end."""
        try:
            for decoder in self._decoders or ():
                decoder.finish()
        except DecodingError as error:
            return f"bad-answer: {error}"
        return None

    def content(self) -> bytes:
        """Return the whole body, if it was to be kept."""
        return b"".join(self._pieces)
