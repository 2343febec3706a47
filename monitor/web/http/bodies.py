"""Bodies of requests that are decoded at once, in the loop."""

from __future__ import annotations

import codecs
from typing import Final

from fastapi import Request

from monitor.web.http.problems import Problem

__all__ = ["MAX_BYTES", "short_body", "without_mark"]

MAX_BYTES: Final = 1024 * 1024


async def short_body(request: Request) -> bytes:
    """Return the body; one that takes long to decode is a problem, whatever ``api`` allows."""
    content = await request.body()
    if len(content) > MAX_BYTES:
        raise Problem(413, f"the body has more than {MAX_BYTES} bytes")
    return without_mark(content)


def without_mark(content: bytes) -> bytes:
    """Return JSON without a byte order mark, which some clients of Windows send."""
    return content.removeprefix(codecs.BOM_UTF8)
