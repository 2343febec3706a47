"""The first words of a result's error, from the kinds of check."""

from __future__ import annotations

from monitor.probes.checks import error_words

__all__ = ["error_table"]


def error_table() -> str:
    """Return the table of the words."""
    lines = ["| word | means |", "|---|---|"]
    lines += [f"| {word} | {text} |" for word, text in error_words().items()]
    return "\n".join(lines)
