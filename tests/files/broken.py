"""What people, editors and attackers make of a good file."""

from __future__ import annotations

from hypothesis import strategies as st

__all__ = ["broken", "pieces"]

pieces = st.sampled_from(
    [
        *("a", "1", "-", "- ", ": ", "\n", "  ", "{", "}", "[", "]", ",", "'", '"', "|\n", ">\n"),
        *("&a ", "*a", "<<: *a", "!!int ", "!!bool ", "!!timestamp ", "!!set ", "!x ", "? ", "~"),
        *("\\x", "\\ud800", "%TAG ! x\n", "---\n", "...\n", "#", "@", "`", "\t", "\0", "\x85"),
        *("\ufeff", ".inf", "0x", "1e400", "2024-13-45", "${NAME}", "null", "9" * 30),
    ]
)


@st.composite
def broken(draw: st.DrawFn, *good: str) -> bytes:
    """Return one of these texts with a few pieces cut, doubled or put in; or just any bytes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    text = draw(st.sampled_from(good))
    for _ in range(draw(st.integers(0, 4))):
        first = draw(st.integers(0, len(text)))
        last = draw(st.integers(first, len(text)))
        middle = draw(st.sampled_from(["", text[first:last] * 2]) | pieces)
        text = text[:first] + middle + text[last:]
    return text.encode("utf-8", "surrogatepass")
