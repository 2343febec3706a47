"""The page's login: a token goes into a cookie that scripts cannot read."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Request, Response

from monitor.tokens import Principal, TokenFile
from monitor.web.http.access import COOKIE
from monitor.web.http.answers import json_answer
from monitor.web.http.problems import Problem
from monitor.web.http.schemas import answer, body

__all__ = ["router"]

# How long a browser keeps the login; the token itself may expire earlier.
_COOKIE_S = 30 * 86400


class SessionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Who the client is, without a ``role`` if nobody; ``login``: whether tokens are needed."""

    name: str | None
    role: str | None
    login: bool


class Login(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token to log in with."""

    token: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


def router(tokens: TokenFile) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["session"])

    def info(principal: Principal | None) -> SessionInfo:
        return SessionInfo(
            name=None if principal is None else principal.name,
            role=None if principal is None else principal.role.value,
            login=bool(tokens.current),
        )

    @routes.get(
        "/session",
        summary="Who the client is",
        response_class=Response,
        responses=answer(SessionInfo, "Who the client is"),
    )
    async def who(request: Request) -> Response:
        found = json_answer(request, info(request.scope["principal"]))
        found.headers["cache-control"] = "no-store"
        return found

    @routes.post(
        "/session",
        summary="Log in: the token is kept in a cookie that scripts cannot read",
        response_class=Response,
        responses=answer(SessionInfo, "Logged in"),
        openapi_extra=body(Login),
    )
    async def log_in(request: Request) -> Response:
        try:
            login = msgspec.json.decode(await request.body(), type=Login)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise Problem(422, 'body: expected {"token": "..."}') from None
        principal = tokens.current.identify(login.token)
        if principal is None:
            raise Problem(401, "there is no such token", headers={"www-authenticate": "Bearer"})
        if not principal.may_read:
            raise Problem(403, "a sender's token may only upload")
        found = json_answer(request, info(principal))
        found.headers["cache-control"] = "no-store"
        if tokens.current:
            _set_cookie(request, found, login.token, _COOKIE_S)
        return found

    @routes.delete("/session", summary="Log out", status_code=204, response_class=Response)
    async def log_out(request: Request) -> Response:
        found = Response(status_code=204)
        _set_cookie(request, found, "", 0)
        return found

    return routes


def _set_cookie(request: Request, response: Response, value: str, max_age: int) -> None:
    # The page may be served through a proxy that terminates TLS; the browser sends its origin.
    secure = request.headers.get("origin", "").startswith("https://")
    response.set_cookie(
        COOKIE, value, max_age=max_age, httponly=True, samesite="strict", secure=secure, path="/"
    )
