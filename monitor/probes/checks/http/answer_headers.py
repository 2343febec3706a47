"""The header of an answer, from the lines that libcurl gives; pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["charset_of", "header_values", "is_whole", "redirect_target"]

# RFC 9110, 8.3.1; names of charsets are tokens (RFC 2978, 2.3).
_CHARSET = re.compile(
    rb';\s*charset\s*=\s*"?([\w.:+-]{1,64})(?:["\s;]|$)', re.ASCII | re.IGNORECASE
)

# Browsers do not follow the others. Source: the WHATWG's fetch standard, 2.2.3.
_REDIRECTS = {b"301", b"302", b"303", b"307", b"308"}
_EMPTY_LINES = (b"\r\n", b"\n")


def is_whole(answer: Sequence[bytes]) -> bool:
    """Return whether the header of an answer has come to its end; trailers may follow."""
    return any(line in answer for line in _EMPTY_LINES)


def redirect_target(answer: Sequence[bytes]) -> bytes | None:
    """Return where a redirect leads; None for any other answer."""
    if not _REDIRECTS.intersection(answer[0].split(maxsplit=2)[1:2] if answer else ()):
        return None
    # As curl and browsers do, ignore an empty one.
    return next(filter(None, header_values(answer, "location")), None)


def header_values(lines: Sequence[bytes], name: str) -> list[bytes]:
    """Return the values of a header, in any case of its name, in their order."""
    wanted = name.lower().encode()
    size = len(wanted)
    return [
        line.partition(b":")[2].strip()
        for line in lines
        if line[:size].lower() == wanted and line[size:].lstrip().startswith(b":")
    ]


def charset_of(lines: Sequence[bytes]) -> str:
    """Return the charset of the Content-Type; "" without one, or with an invalid one."""
    for value in header_values(lines, "content-type"):
        found = _CHARSET.search(value)
        if found:
            return found[1].decode("ascii")
    return ""
