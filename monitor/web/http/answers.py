"""JSON answers: encoded once, with a validator for conditional requests; and cursors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from fastapi import Request, Response

from monitor.store.cursor import read_cursor
from monitor.web.http.problems import Problem

__all__ = ["conditional", "item_list", "json_answer", "parse_cursor"]

T = TypeVar("T")

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
) -> Response:
    """Return ``body`` with an ETag, or 304 if If-None-Match has it (RFC 9110, 13.1.2).

    Only the client itself may store the response, and must revalidate it each time.
    """
    if etag is None:
        etag = f'"{hashlib.blake2b(body, digest_size=9).hexdigest()}"'
    headers = {"etag": etag, "cache-control": "private, no-cache"}
    given = request.headers.get("if-none-match", "").split(",")
    if {"*", etag} & {item.strip().removeprefix("W/") for item in given}:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=media_type, headers=headers)


def parse_cursor(text: str, kind: type[T]) -> T:
    """Read a cursor as a value of ``kind``, a tuple's type; anything else is a problem."""
    try:
        return read_cursor(text, kind)
    except ValueError as error:
        raise Problem(422, str(error)) from None
