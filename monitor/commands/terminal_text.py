"""Escapes untrusted texts for a line in a terminal or pipe."""

from __future__ import annotations

__all__ = ["terminal_json", "terminal_text"]

# Control characters that JSON does not escape: DEL and C1 (ECMA-48, 5.3).
_BEYOND_JSON = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}


def terminal_text(text: str) -> str:
    r"""Return ``text`` as one line without control sequences.

    Line breaks, tabs and other unprintable characters are escaped as in Python: ``\n``, ``\x1b``,
    ``\u202e``.
    """
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def terminal_json(text: str) -> str:
    """Return equivalent JSON without control characters."""
    return text.translate(_BEYOND_JSON)
