"""What may be misspelt in an upload in which no entry is to be found. Pure.

Unknown keys of an upload are the client's own and do no harm. Where there is nothing else,
though, the batch or the entry stands under one of them.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

import msgspec
from msgspec import Raw

from monitor.logs.entries import DECODING_ERRORS
from monitor.logs.filters import Kind
from monitor.validation import nearest, unknown_key

__all__ = ["misspelt_key"]

_COMMON: Final = ("action", "id", "token", "upload_id", "level", "time", "sender", "message")
# Of more keys, reading them alone could hold up the loop: so many take 30 ms.
_MOST_COLONS: Final = 100_000
_MOST_COMPARED: Final = 20
_MOST_CHARACTERS: Final = 100

_decode = msgspec.json.Decoder(dict[str, Raw]).decode


def misspelt_key(data: bytes, kind: Kind) -> str | None:
    """Name the key of an upload that is most likely meant to be another; None without any.

    That is the first that resembles one, else the first that is none. Of a message that may have
    more than 100,000 keys, those of its entries included, nothing is said.
    """
    known = [*_COMMON, kind]
    try:
        keys = _decode(data) if data.count(b":") <= _MOST_COLONS else {}
    except DECODING_ERRORS:
        return None
    unknown = list(islice((key for key in keys if key not in known), _MOST_COMPARED))
    if not unknown:
        return None
    alike = (key for key in unknown if nearest(key[:_MOST_CHARACTERS], known))
    return unknown_key(next(alike, unknown[0]), known)
