"""Where the next page of a list starts, as the opaque text that a client sends back."""

from __future__ import annotations

import base64
from typing import Annotated, TypeVar

import msgspec

__all__ = ["Number", "Text", "Time", "cursor_of", "read_cursor"]

T = TypeVar("T")

Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A number of a cursor, as far as databases count."""

Time = Annotated[float, msgspec.Meta(ge=0, le=253402300800)]
"""An instant of a cursor in s since the epoch, as far as calendars go."""

Text = Annotated[str, msgspec.Meta(max_length=1000, pattern=r"^[^\x00]*$")]
"""A text of a cursor, as far as databases store it."""


def cursor_of(*place: str | float) -> str:
    """Return a place in a list as a cursor, safe in a URL."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def read_cursor(text: str, kind: type[T]) -> T:
    """Return the place of a cursor as ``kind``, a type of tuple; raises ValueError."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        return msgspec.json.decode(raw, type=kind)
    except (ValueError, msgspec.MsgspecError):
        raise ValueError("cursor: not one that an answer gave") from None
