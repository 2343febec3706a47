"""Texts of others, made fit to stand in a line of a terminal or of a pipe."""

from __future__ import annotations

__all__ = ["terminal_json", "terminal_text"]

# What JSON may hold as it is and a terminal may take for a command: DEL and C1 (ECMA-48, 5.3).
_BEYOND_JSON = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}


def terminal_text(text: str) -> str:
    r"""Return ``text`` as one line without what could command a terminal.

    Line breaks, tabs, escapes and whatever else is not printable are shown as Python writes
    them: ``\n``, ``\x1b``, ``\u202e``.
    """
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def terminal_json(text: str) -> str:
    """Return JSON that says the same and commands no terminal."""
    return text.translate(_BEYOND_JSON)
