"""JSON answers: encoded once, with a validator for conditional requests; and cursors."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from fastapi import Request, Response

from monitor.web.http.problems import Problem

__all__ = [
    "Place",
    "Time",
    "conditional",
    "cursor_of",
    "item_list",
    "json_answer",
    "parse_cursor",
]

_encoder = msgspec.json.Encoder()


def json_answer(request: Request, data: Any) -> Response:
    """Return ``data`` as JSON, or 304 if the client has it already."""
    return conditional(request, _encoder.encode(data), "application/json")


def item_list(request: Request, items: Sequence[Any], cursor: str | None) -> Response:
    """Return a page of a list; ``cursor`` leads to the next page, if there is one."""
    return json_answer(request, {"items": items, "cursor": cursor})


def conditional(
    request: Request,
    body: bytes,
    media_type: str,
    *,
    etag: str | None = None,
    cache_control: str = "private, no-cache",
    headers: dict[str, str] | None = None,
) -> Response:
    """Return ``body`` with an ETag, or 304 if If-None-Match has it (RFC 9110, 13.1.2).

    By default only the client itself may store the response, and must revalidate it each time.
    """
    if etag is None:
        etag = f'"{hashlib.blake2b(body, digest_size=9).hexdigest()}"'
    all_headers = {"etag": etag, "cache-control": cache_control, **(headers or {})}
    if _matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=all_headers)
    return Response(body, media_type=media_type, headers=all_headers)


def _matches(header: str | None, etag: str) -> bool:
    if header is None:
        return False
    named = {item.strip().removeprefix("W/") for item in header.split(",")}
    return "*" in named or etag in named


def cursor_of(*place: str | int | float) -> str:
    """Write a place in a list as an opaque cursor."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


Place = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A number that a cursor may hold, as far as databases count."""

Time = Annotated[float, msgspec.Meta(ge=0, le=253402300800)]
"""An instant in s since the epoch that a cursor may hold, as far as calendars go."""


def parse_cursor(text: str, kind: Any) -> Any:
    """Read a cursor as a value of ``kind``, a tuple's type; anything else is a problem."""
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return msgspec.json.decode(raw, type=kind)
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise Problem(422, "cursor: not one that an answer gave") from None
