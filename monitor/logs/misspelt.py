"""What may be misspelt in an upload in which no entry is to be found. Pure.

Unknown keys of an upload are the client's own and do no harm. Where there is nothing else,
though, the batch or the entry stands under one of them.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw

from monitor.logs.entries import DECODING_ERRORS
from monitor.logs.filters import Kind
from monitor.plain_words import plain_problem

__all__ = ["unknown_key"]

_NOTHING: Final = Raw()


class _Keys(msgspec.Struct, forbid_unknown_fields=True):
    action: Raw = _NOTHING
    id: Raw = _NOTHING
    token: Raw = _NOTHING
    upload_id: Raw = _NOTHING
    level: Raw = _NOTHING
    time: Raw = _NOTHING
    sender: Raw = _NOTHING
    message: Raw = _NOTHING


class _LogsKeys(_Keys, forbid_unknown_fields=True):
    logs: Raw = _NOTHING


class _NotificationsKeys(_Keys, forbid_unknown_fields=True):
    notifications: Raw = _NOTHING


_KEYS: Final = {Kind.LOGS: _LogsKeys, Kind.NOTIFICATIONS: _NotificationsKeys}


def unknown_key(data: bytes, kind: Kind) -> str | None:
    """Name the first key of an upload that is none, and what may be meant; None without any."""
    keys = _KEYS[kind]
    try:
        msgspec.json.decode(data, type=keys)
    except DECODING_ERRORS as error:
        return plain_problem(error, keys)
    return None
