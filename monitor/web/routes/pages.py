"""Pages for people: the live page, its files, and the API's documentation."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import msgspec
from fastapi import APIRouter, FastAPI, Request, Response

from monitor import __version__
from monitor.files.threads import call_aside
from monitor.web.context import Context
from monitor.web.http.answers import conditional, json_answer
from monitor.web.http.docs_page import render
from monitor.web.http.problems import Problem
from monitor.web.http.schemas import JSON, answer
from monitor.web.http.static_files import manifest, page, with_version

__all__ = ["OPEN_PATHS", "router", "wants_json"]

_WEIGHT = re.compile(r"[01](\.\d{0,3})?")

# Below /heartbeat/ the path itself has the credential.
OPEN_PATHS = (
    "/",
    "/static/",
    "/manifest.webmanifest",
    "/session",
    "/healthz",
    "/readyz",
    "/heartbeat/",
    "/status",
    "/status/",
    "/badge/",
)
"""Paths without a token: the page itself shows nothing until it has one, and the public status only
what ``api.status_page`` names."""


class Overview(msgspec.Struct, frozen=True):
    """The daemon, and the state of its parts."""

    name: str
    version: str
    started_at: float
    parts: dict[str, dict[str, str]]


def router(context: Context) -> APIRouter:
    """Return the routes."""
    routes = APIRouter()

    responses: Any = answer(Overview, "The page; or, as JSON, the daemon and its parts")
    responses[200]["content"]["text/html"] = {"schema": {"type": "string"}}

    @routes.get(
        "/",
        tags=["page"],
        summary="The live page; with Accept: application/json name, version, parts and their state",
        response_class=Response,
        responses=responses,
    )
    async def index(request: Request) -> Response:
        if not wants_json(request.headers.get("accept", "")):
            found = conditional(request, page(), "text/html")
            found.headers["vary"] = "accept"
            return found
        if request.scope["principal"] is None:
            raise Problem(401, "a valid token is needed", headers={"www-authenticate": "Bearer"})
        status = context.status
        parts = {
            name: {"health": state.health.value, "summary": state.summary}
            for name, state in status.states().items()
        }
        return json_answer(
            request, Overview("recodex-monitor", __version__, status.started_at, parts)
        )

    @routes.get("/manifest.webmanifest", include_in_schema=False)
    async def app_manifest(request: Request) -> Response:
        # Its links are relative to where it is served: here, the page's own directory.
        return conditional(request, manifest(), "application/manifest+json")

    @routes.get(
        "/docs",
        tags=["page"],
        summary="This API's documentation",
        response_class=Response,
        responses={
            200: {
                "description": "The page",
                "content": {"text/html": {"schema": {"type": "string"}}},
            },
            304: {"description": "The client has it already (If-None-Match)"},
        },
    )
    async def documentation(request: Request) -> Response:
        return conditional(request, (await described(request.app))[1], "text/html")

    @routes.get("/openapi.json", include_in_schema=False)
    async def openapi(request: Request) -> Response:
        return conditional(request, (await described(request.app))[0], JSON)

    making = asyncio.Lock()
    made: list[bytes] = []

    async def described(app: FastAPI) -> Sequence[bytes]:
        """Return the OpenAPI document and its page, which are made once."""
        async with making:
            made[:] = made or await call_aside(_described, app)
        return made

    return routes


def _described(app: FastAPI) -> list[bytes]:
    document = app.openapi()
    return [msgspec.json.encode(document), with_version(render(document)).encode()]


def wants_json(accept: str) -> bool:
    """Return whether JSON is named, and HTML is not or has a lower weight (RFC 9110, 12.5.1)."""
    weights = {JSON: 0.0, "text/html": 0.0}
    for item in accept.lower().split(","):
        kind, *parameters = item.replace(" ", "").split(";")
        if kind in weights:
            given = [text[2:] for text in parameters if text.startswith("q=")]
            weights[kind] = float(given[0]) if given and _WEIGHT.fullmatch(given[0]) else 1.0
    return weights[JSON] > weights["text/html"]
