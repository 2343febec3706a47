"""The headers that a job sends."""

from __future__ import annotations

import re
from collections.abc import Mapping

from monitor.errors import SettingError

__all__ = ["verify_headers"]

_MOST_HEADERS = 100
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def verify_headers(headers: Mapping[str, str]) -> None:
    """Raise SettingError with a path from ``headers`` for one that cannot be sent."""
    if len(headers) > _MOST_HEADERS:
        raise SettingError(("headers",), f"more than {_MOST_HEADERS} headers")
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            raise SettingError(("headers",), f"{name!r} is not a header's name")
        # RFC 9110 5.5: CR, LF and NUL would end or split the header.
        if any(ord(letter) < 32 and letter != "\t" for letter in value):
            raise SettingError(("headers", name), "has a control character")
