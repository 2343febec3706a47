"""The HTTP application: FastAPI behind a gate that every request passes."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from monitor import __version__
from monitor.log_limits import RateLimitedLog
from monitor.tokens import Principal, Role
from monitor.transport.fair import Turns
from monitor.web.http.access import (
    BEATS,
    COOKIE,
    SAFE_METHODS,
    UPLOAD_PATHS,
    Access,
    Refusal,
    credentials_in,
    headers_by_name,
    too_many,
)
from monitor.web.http.attempts import Attempts
from monitor.web.http.compression import Compression
from monitor.web.http.connections import CONNECTION, Connections
from monitor.web.http.problems import ERRORS, Problem, install, problem_response
from monitor.web.http.schemas import Schemas
from monitor.web.http.static_files import PageFiles
from monitor.web.sub_path import inner_path

__all__ = ["Gate", "Requester", "admin_only", "audited", "make_app", "requester"]

logger = logging.getLogger("monitor.web")
_audit_log = logging.getLogger("monitor.web.audit")
# Bytes of a body that somebody without a token sends, which is at most a login.
_MAX_OPEN_BODY_BYTES = 4096
# Paths of health checks, which get the last connections.
_HEALTH = frozenset(("/healthz", "/readyz"))
_AUDIT = "audit: %s by %s from %s: %d%s"

# Also below a sub-path, and where somebody mistyped the rest.
_KEY = re.compile(rf"({BEATS}).*", re.IGNORECASE | re.DOTALL)
# Supervisors get an answer here, whatever else they send.
_NEVER_LIMITED = frozenset(("/", "/healthz", "/readyz"))

# Only the daemon's own files, no inline script or style, no embedding in a frame.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'"
)
# Other answers need none of these; on each one they would be a tenth of a first visit.
_BARE_POLICY = "default-src 'none'; frame-ancestors 'none'"
_SAFETY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


def make_app(
    connections: Connections,
    access: Access,
    attempts: Attempts,
    routers: Iterable[APIRouter],
    websockets: Iterable[str] = (),
) -> ASGIApp:
    """Return the application that serves ``routers``; paths of ``websockets`` answer 426."""
    app = FastAPI(
        title="recodex-monitor",
        version=__version__,
        docs_url=None,  # FastAPI's page loads scripts from another host
        redoc_url=None,
        openapi_url=None,  # a route of the pages has the document, made in a thread
        # A redirect would lead to any host that the request names.
        redirect_slashes=False,
    )
    install(app)
    for router in routers:
        app.include_router(router, responses=ERRORS)
    for path in websockets:
        app.add_api_route(path, _upgrade_required, include_in_schema=False)
    app.mount("/static", PageFiles())
    for route in app.routes:
        # Recent versions of FastAPI prepare a router at its first request, which takes 50 ms.
        list(getattr(route, "effective_route_contexts", tuple)())
    _describe(app, connections)
    return Gate(app, connections, access, attempts)


async def _upgrade_required() -> None:
    raise Problem(
        426,
        "this is a WebSocket: a request needs `Connection: Upgrade` and `Upgrade: websocket`, and a"
        " proxy in front must pass on both",
        # Upgrade concerns only this connection, so Connection must name it (RFC 9110, 7.8).
        headers={"upgrade": "websocket", "connection": "upgrade"},
    )


def _describe(app: FastAPI, connections: Connections) -> None:
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
            if connections.settings.root_path:
                document["servers"] = [{"url": connections.settings.root_path}]
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


async def requester(request: Request) -> Principal:
    """Return the principal of the request; a FastAPI dependency."""
    principal: Principal | None = request.scope["principal"]
    if principal is None:
        raise Problem(401, "a valid token is needed", headers={"www-authenticate": "Bearer"})
    return principal


Requester = Annotated[Principal, Depends(requester)]


async def admin_only(principal: Requester) -> Principal:
    """Refuse everyone but admins; a FastAPI dependency."""
    if principal.role is not Role.ADMIN:
        raise Problem(403, "only an admin's token may do this")
    return principal


def audited(request: Request, change: str) -> None:
    """Add what a request changed to its line in the audit log."""
    request.scope["audit"].append(change)


class Gate:
    """Checks every request, limits its body, and turns every error into a problem."""

    def __init__(
        self, app: ASGIApp, connections: Connections, access: Access, attempts: Attempts
    ) -> None:
        self._app = app
        self._compressed = Compression(app)
        self._connections = connections
        self._access = access
        self._attempts = attempts
        self._nobodys_log = RateLimitedLog(_audit_log, lines=30)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        headers = headers_by_name(
            (key.decode("latin-1"), value.decode("latin-1")) for key, value in scope["headers"]
        )
        answered = _Answer(send)
        client = self._connections.forwarded(scope.get("client"), headers.get("x-forwarded-for"))
        turns = Turns.of(asyncio.get_running_loop())
        await turns.begin_request(client[0] if client else "")
        root_path = self._connections.settings.root_path
        path = inner_path(root_path, scope["path"])
        scope = {**scope, "client": client, "path": path, "raw_path": path.encode()}
        found = self._access.check(scope["method"], scope["path"], headers)
        if credentials_in(headers) and scope["path"] not in _NEVER_LIMITED:
            found = self._limited(scope, found)
        if isinstance(found, Principal):
            self._connections.known(_connection(scope))
        scope["audit"] = []
        try:
            await self._serve(scope, headers, found, receive, answered)
        finally:
            uploads = scope["path"] in UPLOAD_PATHS or scope["path"].startswith(BEATS)
            if scope["method"] not in SAFE_METHODS and not uploads:
                self._audit(scope, found, answered.status)

    def _limited(
        self, scope: Scope, found: Principal | Refusal | None
    ) -> Principal | Refusal | None:
        """Count an invalid token or session; refuse it for a while if there are too many."""
        if found is not None and not (isinstance(found, Refusal) and found.status == 401):
            return found
        client = scope.get("client")
        wait_s = self._attempts.fail(client[0] if client else "", time.monotonic())
        return too_many(wait_s) if wait_s else found

    async def _serve(
        self,
        scope: Scope,
        headers: dict[str, str],
        found: Principal | Refusal | None,
        receive: Receive,
        send: Send,
    ) -> None:
        if scope["path"] == self._connections.settings.root_path != "":
            # The page's links are relative to its directory.
            to = {"location": scope["path"] + "/"}
            await problem_response(308, "the page is below this path", to)(scope, receive, send)
            return
        if isinstance(found, Refusal):
            more = {"www-authenticate": "Bearer"} if found.status == 401 else found.headers
            await problem_response(found.status, found.detail, more)(scope, receive, send)
            return
        reserved = self._connections.is_reserved(_connection(scope))
        if found is None and scope["path"] not in _HEALTH and reserved:
            refusal = problem_response(
                503, "too many connections", {"retry-after": "5", "connection": "close"}
            )
            await refusal(scope, receive, send)
            return
        if "transfer-encoding" in headers and "content-length" in headers:
            # A proxy in front may see another end of this request, and another request after it
            # (RFC 9112, 6.1).
            problem = "Transfer-Encoding and Content-Length cannot be used together"
            await problem_response(400, problem, {"connection": "close"})(scope, receive, send)
            return
        limit = self._connections.settings.max_body_bytes
        if found is None:
            limit = min(limit, _MAX_OPEN_BODY_BYTES)
        if int(headers.get("content-length", "0")) > limit:
            # The body is not read, so no request can follow it on this connection.
            refusal = problem_response(413, _too_large(limit), {"connection": "close"})
            await refusal(scope, receive, send)
            return
        # Routes for GET answer HEAD; the server omits the body.
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        try:
            await self._compressed(
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
        change = "".join(f", {each}" for each in scope["audit"])[:500]
        change = change.encode("unicode_escape").decode()
        words = (
            _shown(scope),
            name or "nobody",
            client[0] if client else "unknown",
            status,
            change,
        )
        if name:
            _audit_log.info(_AUDIT, *words)
        else:
            self._nobodys_log.info("audit of nobody", _AUDIT, *words)


def _connection(scope: Scope) -> Any:
    return scope.get("state", {}).get(CONNECTION)


def _shown(scope: Scope) -> str:
    """Return a request as text for the log: on one line, and not too long."""
    path = _KEY.sub(r"\1***", scope["path"])[:200].encode("unicode_escape").decode()
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
            found = {key.lower(): value for key, value in given}
            if b"cache-control" not in found:
                given.append((b"cache-control", b"no-store"))
            # A 304 has no type, and its headers replace those of the page that the browser has.
            is_page = found.get(b"content-type", b"text/html").startswith(b"text/html")
            policy = _POLICY if is_page else _BARE_POLICY
            # A badge is for the pages of others, and says so itself.
            given += [
                each
                for each in ((b"content-security-policy", policy.encode()), *_SAFETY_HEADERS)
                if each[0] not in found
            ]
            message = {**message, "headers": given}
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
