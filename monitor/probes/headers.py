"""The headers that a job sends."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

from monitor.errors import SettingError
from monitor.settings import verify_each

__all__ = ["verify_headers", "verify_length", "verify_name"]

_MOST_HEADERS = 100
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def verify_headers(headers: Mapping[str, str]) -> None:
    """Raise SettingError with a path from ``headers`` for one that cannot be sent."""
    if len(headers) > _MOST_HEADERS:
        raise SettingError(("headers",), f"more than {_MOST_HEADERS} headers")
    known: dict[str, str] = {}
    verify_each(*(partial(_verify_header, *each, known) for each in headers.items()))


def _verify_header(name: str, value: str, known: dict[str, str]) -> None:
    verify_name(name, ("headers",))
    # RFC 9110 5.5: CR, LF and NUL would end or split the header.
    if any((ord(letter) < 32 and letter != "\t") or ord(letter) == 127 for letter in value):
        raise SettingError(("headers", name), "has a control character")
    if known.setdefault(name.lower(), name) != name:
        # Only one of them would be sent.
        raise SettingError(("headers", name), f"is the same header as {known[name.lower()]}")


def verify_length(headers: Mapping[str, str], body: bytes | None) -> None:
    """Raise SettingError for a header that announces another body than the one that is sent.

    The server would wait for the rest.
    """
    for name, value in headers.items():
        if name.lower() == "content-length" and value.strip() != str(len(body or b"")):
            raise SettingError(("headers", name), f"the body has {len(body or b'')} bytes")
        if name.lower() == "transfer-encoding" and (
            body is None or value.strip().lower() != "chunked"
        ):
            problem = "there is no body" if body is None else "only chunked can be sent"
            raise SettingError(("headers", name), problem)


def verify_name(name: str, path: tuple[str, ...], *, what: str = "header's name") -> None:
    """Raise SettingError with ``path`` for a text that is not a token of HTTP."""
    if not _NAME.fullmatch(name):
        raise SettingError(path, f"{name!r} is not a {what}")
