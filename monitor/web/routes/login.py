"""The page's login: it begins a session, whose secret is in a cookie that scripts cannot read."""

from __future__ import annotations

import math
import time
from typing import Annotated

import msgspec
from fastapi import APIRouter, Request, Response

from monitor.tokens import Principal
from monitor.web.context import Context
from monitor.web.http.access import COOKIE, too_many
from monitor.web.http.answers import json_answer
from monitor.web.http.app import audited
from monitor.web.http.bodies import without_mark
from monitor.web.http.problems import TOO_MANY_REQUESTS, Problem
from monitor.web.http.schemas import answer, body

__all__ = ["router"]

# A token has 47 characters.
_MAX_BODY_BYTES = 4096


class SessionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Who the client is, without a ``role`` if nobody; ``login``: whether tokens are needed."""

    name: str | None
    role: str | None
    login: bool


class Login(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token to log in with."""

    token: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


def router(context: Context) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["session"])
    tokens, sessions, attempts = context.tokens, context.sessions, context.attempts

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
        summary="Log in: begins a session, in a cookie that scripts cannot read",
        response_class=Response,
        responses={**answer(SessionInfo, "Logged in"), **TOO_MANY_REQUESTS},
        openapi_extra=body(Login),
    )
    async def log_in(request: Request) -> Response:
        login = await _login(request)
        principal = tokens.current.identify(login.token)
        if principal is None:
            peer = request.client.host if request.client is not None else ""
            wait_s = attempts.fail(peer, time.monotonic())
            if wait_s:
                refusal = too_many(wait_s)
                raise Problem(refusal.status, refusal.detail, headers=refusal.headers)
            raise Problem(401, "there is no such token", headers={"www-authenticate": "Bearer"})
        if not principal.may_read:
            audited(request, f"refused {principal.name}, a sender")
            raise Problem(403, "a sender's token may only upload")
        found = json_answer(request, info(principal))
        found.headers["cache-control"] = "no-store"
        if tokens.current:
            _end(request)
            secret, lasts_s = sessions.begin(login.token)
            await sessions.save()
            _set_cookie(request, found, secret, math.ceil(lasts_s))
            audited(request, f"{principal.name} ({principal.role}) logged in")
        return found

    @routes.delete("/session", summary="Log out", status_code=204, response_class=Response)
    async def log_out(request: Request) -> Response:
        found = Response(status_code=204)
        if _end(request):
            await sessions.save()
            # Those that the session opened.
            context.recheck()
            audited(request, "logged out")
        _set_cookie(request, found, "", 0)
        return found

    def _end(request: Request) -> bool:
        """End the session of the request's cookie; return whether there was one."""
        secret = request.cookies.get(COOKIE, "")
        if sessions.owner(secret) is None:
            return False
        sessions.end(secret)
        return True

    return routes


async def _login(request: Request) -> Login:
    """Return the token of a body that is not larger than any token; raises Problem."""
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > _MAX_BODY_BYTES:
            problem = f"the body is longer than {_MAX_BODY_BYTES} bytes"
            raise Problem(413, problem, headers={"connection": "close"})
    try:
        return msgspec.json.decode(without_mark(bytes(content)), type=Login)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Problem(422, 'body: expected {"token": "..."}') from None


def _set_cookie(request: Request, response: Response, value: str, max_age: int) -> None:
    # The page may be served through a proxy that terminates TLS; the browser sends its origin.
    secure = "https" in (request.url.scheme, request.headers.get("origin", "").partition(":")[0])
    response.set_cookie(
        COOKIE, value, max_age=max_age, httponly=True, samesite="strict", secure=secure, path="/"
    )
