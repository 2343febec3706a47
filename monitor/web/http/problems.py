"""Every error that a client can get, as application/problem+json (RFC 9457)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from monitor.errors import MonitorError

__all__ = ["ERRORS", "Problem", "from_database", "install", "problem_body", "problem_response"]

MEDIA_TYPE = "application/problem+json"

_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "problems": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"where": {"type": "string"}, "problem": {"type": "string"}},
            },
        },
    },
}


def _described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": _SCHEMA}},
        }
        for status in statuses
    }


ERRORS = _described(400, 401, 403, 422, 503)
"""Answers that every route may give, for its ``responses``."""

NOT_FOUND = _described(404)
CONFLICT = _described(409)
TOO_LARGE = _described(413)
TOO_MANY_REQUESTS = _described(429)


class Problem(HTTPException):
    """An error for the client: a status, a sentence, and members of its own."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: dict[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(status, detail, headers)
        self.members = members


@contextmanager
def from_database() -> Iterator[None]:
    """Raise an error of the database as a problem with status 503."""
    try:
        yield
    except MonitorError as error:
        raise Problem(503, str(error), headers={"retry-after": "5"}) from None


def problem_body(status: int, detail: str, **members: Any) -> bytes:
    """Return the JSON of a problem; empty ``members`` are omitted."""
    title = HTTPStatus(status).phrase
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return msgspec.json.encode(body | {k: v for k, v in members.items() if v is not None})


def problem_response(
    status: int, detail: str, headers: dict[str, str] | None = None, **members: Any
) -> Response:
    """Return a problem as a response."""
    return Response(
        problem_body(status, detail, **members), status, headers=headers, media_type=MEDIA_TYPE
    )


def install(app: FastAPI) -> None:
    """Answer every HTTPException, unknown path, wrong method and invalid request as a problem."""

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        members = error.members if isinstance(error, Problem) else {}
        headers = dict(error.headers) if error.headers else None
        if error.status_code == 405 and headers is not None:
            # The router names the methods of the first route with this path.
            headers["Allow"] = ", ".join(_methods(app, request))
        return problem_response(error.status_code, str(error.detail), headers, **members)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        problems = [
            {
                "where": ".".join(map(str, each["loc"])),
                "problem": each["msg"].removeprefix("Value error, "),
            }
            for each in error.errors()[:20]
        ]
        first = problems[0] if problems else {"where": "request", "problem": "invalid"}
        detail = f"{first['where']}: {first['problem']}"
        return problem_response(422, detail, problems=problems)

    @app.exception_handler(ClientDisconnect)
    async def _gone(_: Request, error: ClientDisconnect) -> Response:
        del error  # nobody reads the response, and it is not a defect
        return problem_response(400, "the body is incomplete")

    @app.exception_handler(Exception)
    async def _failed(_: Request, error: Exception) -> Response:
        del error  # the gate logs it
        return problem_response(500, "internal error; the log has details")


def _methods(app: FastAPI, request: Request) -> list[str]:
    """Return the methods that the path of a request has."""
    found = [
        method
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in app.router.routes
        )
    ]
    return ["GET", "HEAD", *found[1:]] if found[:1] == ["GET"] else found
