"""Inputs near real ones: a corpus of each parser, and what changes its entries."""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st

__all__ = ["corpus", "mutated"]

_CORPUS = Path(__file__).parent / "corpus"
# What breaks parsers: ends of ranges, separators, encodings cut off.
_TOKENS = [
    b"\0", b"\xff", b"\x80", b"\xed\xa0\x80", b"\xf0\x9f", b"\r", b"\n", b"\r\n\r\n", b" ", b":",
    b"-1", b"0", b"18446744073709551616", b"1e999", b"NaN", b"null", b"true", b"%00", b"%", b"//",
    b'"', b"\\u0000", b"\\ud800", b"[" * 200, b'{"a":' * 200, b"A" * 20_000,
]  # fmt: skip


def corpus(name: str) -> list[bytes]:
    """Return the entries of a corpus, one a line with the escapes of Python's bytes."""
    lines = (_CORPUS / f"{name}.txt").read_text().splitlines()
    return [line.encode().decode("unicode_escape").encode("latin-1") for line in lines]


@st.composite
def mutated(draw: st.DrawFn, name: str) -> bytes:
    """Draw an entry of a corpus with up to four changes."""
    data = bytearray(draw(st.sampled_from(corpus(name))))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.integers(0, 12)))
        part = bytes(data[start:stop])
        data[start:stop] = draw(
            st.sampled_from([*_TOKENS, b"", part * 2, part[::-1]]) | st.binary(max_size=4)
        )
    return bytes(data)
