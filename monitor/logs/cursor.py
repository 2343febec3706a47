"""Where the next page of a list starts. Pure."""

from __future__ import annotations

import base64
import binascii
import math
import struct
from typing import NamedTuple

__all__ = ["Cursor"]

_LAYOUT = struct.Struct(">dq")


class Cursor(NamedTuple):
    """The last entry of a page; the next page is what comes before it by (time, id).

    Ids only order entries of one time, so pages stay stable while new entries arrive.
    """

    time: float
    id: int

    def text(self) -> str:
        """Return the cursor as clients carry it: opaque, safe in a URL."""
        return base64.urlsafe_b64encode(_LAYOUT.pack(*self)).rstrip(b"=").decode()

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read a cursor; raises ValueError for anything that :meth:`text` did not make."""
        try:
            packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            cursor = cls(*_LAYOUT.unpack(packed))
        except (binascii.Error, struct.error, ValueError):
            raise ValueError("not a cursor") from None
        if not math.isfinite(cursor.time) or cursor.text() != text:
            raise ValueError("not a cursor")
        return cursor
