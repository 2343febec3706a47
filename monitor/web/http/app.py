"""The HTTP application: FastAPI behind a gate that every request passes."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from monitor import __version__
from monitor.log_limits import RateLimitedLog
from monitor.tokens import Principal, Role
from monitor.web.http.access import COOKIE, SAFE_METHODS, Access, Refusal, headers_by_name
from monitor.web.http.limits import Connections
from monitor.web.http.problems import ERRORS, Problem, install, problem_response
from monitor.web.http.schemas import Schemas
from monitor.web.http.static_files import PageFiles

__all__ = ["Gate", "Requester", "admin_only", "make_app", "requester"]

logger = logging.getLogger("monitor.web")
_audit_log = logging.getLogger("monitor.web.audit")
_AUDIT = "audit: %s by %s from %s: %d"

# Only the daemon's own files, no inline script or style, no embedding in a frame.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_SAFETY_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


def make_app(
    connections: Connections,
    access: Access,
    routers: Iterable[APIRouter],
    websockets: Iterable[str] = (),
) -> ASGIApp:
    """Return the application that serves ``routers``; paths of ``websockets`` answer 426."""
    app = FastAPI(
        title="recodex-monitor",
        version=__version__,
        docs_url=None,  # FastAPI's page loads scripts from another host
        redoc_url=None,
        # A redirect would lead to any host that the request names.
        redirect_slashes=False,
    )
    install(app)
    for router in routers:
        app.include_router(router, responses=ERRORS)
    for path in websockets:
        app.add_api_route(path, _upgrade_required, include_in_schema=False)
    app.mount("/static", GZipMiddleware(PageFiles()))
    _describe(app)
    return Gate(app, connections, access)


async def _upgrade_required() -> None:
    raise Problem(
        426,
        "this is a WebSocket: a request needs `Connection: Upgrade` and `Upgrade: websocket`, and a"
        " proxy in front must pass on both",
        # Upgrade concerns only this connection, so Connection must name it (RFC 9110, 7.8).
        headers={"upgrade": "websocket", "connection": "upgrade"},
    )


def _describe(app: FastAPI) -> None:
    """Add the schemas of msgspec types and the authentication to the OpenAPI document."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            components = document.setdefault("components", {})
            components.setdefault("schemas", {}).update(Schemas.components())
            components["securitySchemes"] = {
                "token": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": COOKIE},
            }
            document["security"] = [{"token": []}, {"cookie": []}, {}]
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def requester(request: Request) -> Principal:
    """Return the principal of the request; a FastAPI dependency."""
    principal: Principal | None = request.scope["principal"]
    if principal is None:
        raise Problem(401, "a valid token is needed", headers={"www-authenticate": "Bearer"})
    return principal


Requester = Annotated[Principal, Depends(requester)]


def admin_only(principal: Requester) -> Principal:
    """Refuse everyone but admins; a FastAPI dependency."""
    if principal.role is not Role.ADMIN:
        raise Problem(403, "only an admin's token may do this")
    return principal


class Gate:
    """Checks every request, limits its body, and turns every error into a problem."""

    def __init__(self, app: ASGIApp, connections: Connections, access: Access) -> None:
        self._app = app
        self._connections = connections
        self._access = access
        self._nobodys_log = RateLimitedLog(_audit_log, lines=30)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        headers = headers_by_name(
            (key.decode("latin-1"), value.decode("latin-1")) for key, value in scope["headers"]
        )
        answered = _Answer(send)
        found = self._access.check(scope["method"], scope["path"], headers)
        try:
            await self._serve(scope, headers, found, receive, answered)
        finally:
            if scope["method"] not in SAFE_METHODS:
                self._audit(scope, found, answered.status)

    async def _serve(
        self,
        scope: Scope,
        headers: dict[str, str],
        found: Principal | Refusal | None,
        receive: Receive,
        send: Send,
    ) -> None:
        if isinstance(found, Refusal):
            challenge = {"www-authenticate": "Bearer"} if found.status == 401 else None
            await problem_response(found.status, found.detail, challenge)(scope, receive, send)
            return
        if "transfer-encoding" in headers and "content-length" in headers:
            # A proxy in front may see another end of this request, and another request after it
            # (RFC 9112, 6.1).
            problem = "Transfer-Encoding and Content-Length exclude each other"
            await problem_response(400, problem, {"connection": "close"})(scope, receive, send)
            return
        limit = self._connections.settings.max_body_bytes
        if int(headers.get("content-length", "0")) > limit:
            # The body is not read, so no request can follow it on this connection.
            refusal = problem_response(413, _too_large(limit), {"connection": "close"})
            await refusal(scope, receive, send)
            return
        # Routes for GET answer HEAD; the server omits the body.
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        try:
            await self._app(
                {**scope, "method": method, "principal": found}, _bounded(receive, limit), send
            )
        except Exception as error:  # noqa: BLE001 - a defect of a route must not end the server
            logger.error(
                "%s failed: %s: %s",
                _shown(scope),
                type(error).__name__,
                str(error).partition("\n")[0][:200],
            )

    def _audit(self, scope: Scope, found: Principal | Refusal | None, status: int) -> None:
        """Log who changed what, or tried to; unknown clients are limited in rate."""
        name = found.name if found is not None else ""
        client = scope.get("client")
        words = (_shown(scope), name or "nobody", client[0] if client else "unknown", status)
        if name:
            _audit_log.info(_AUDIT, *words)
        else:
            self._nobodys_log.info("audit of nobody", _AUDIT, *words)


def _shown(scope: Scope) -> str:
    """Return a request as text for the log: on one line, and not too long."""
    path = scope["path"][:200].encode("unicode_escape").decode()
    return f"{scope['method'][:20]} {path}"


class _Answer:
    """Sends a response with the headers that every response has, and remembers its status.

    A response without Cache-Control must not be stored.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = list(message.get("headers", ()))
            if not any(key.lower() == b"cache-control" for key, _ in given):
                given.append((b"cache-control", b"no-store"))
            message = {**message, "headers": [*given, *_SAFETY_HEADERS]}
        await self._send(message)


def _bounded(receive: Receive, limit: int) -> Receive:
    got = 0

    async def receive_bounded() -> Any:
        nonlocal got
        message = await receive()
        if message["type"] == "http.request":
            got += len(message.get("body", b""))
            if got > limit:
                raise Problem(413, _too_large(limit), headers={"connection": "close"})
        return message

    return receive_bounded


def _too_large(limit: int) -> str:
    return f"the body is longer than {limit} bytes"
