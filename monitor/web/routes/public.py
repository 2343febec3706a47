"""GET /status and /badge: what everybody may see of the sites that ``api.status_page`` names."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import msgspec
from fastapi import APIRouter, Request, Response

from monitor.web.http.compression import accepts_gzip
from monitor.web.http.problems import NOT_FOUND, Problem, from_database
from monitor.web.http.schemas import JSON, answer
from monitor.web.http.static_files import with_version
from monitor.web.public.badges import state_badge, uptime_badge
from monitor.web.public.feed import ATOM, render_feed
from monitor.web.public.page import render_page
from monitor.web.public.reckoning import PublicBook, Rendered
from monitor.web.public.status import PublicSite, PublicStatus
from monitor.web.routes.jobs import JobId
from monitor.web.routes.pages import wants_json

__all__ = ["router"]

_HTML, _SVG = "text/html", "image/svg+xml"
_NONE = "there is no public status page; api.status_page in the config turns it on"
# s that a proxy or a browser may keep an answer.
_KEPT_S = 10
_BADGE_KEPT_S = 60
# A shorter answer fits in one packet.
_LEAST_COMPRESSED = 1400
_LEVEL = 6

Span = Literal["24h", "7d", "30d", "90d"]


def router(book: PublicBook | None) -> APIRouter:
    """Return the routes; without a ``book`` there are no sites to show."""
    routes = APIRouter(tags=["public"])

    async def current() -> Rendered:
        if book is None:
            raise Problem(404, f"{_NONE}, and the section probes the sites")
        with from_database():
            found = await book.current()
        if found is None:
            raise Problem(404, _NONE)
        return found

    async def site(job_id: int) -> PublicSite:
        found = (await current()).sites.get(job_id)
        if found is None:
            raise Problem(404, f"there is no public site {job_id}")
        return found

    responses: Any = answer(PublicStatus, "The page; or, as JSON, what it shows")
    responses[200]["content"][_HTML] = {"schema": {"type": "string"}}

    @routes.get(
        "/status",
        summary="The public status page of api.status_page; no token needed",
        response_class=Response,
        responses={**responses, **NOT_FOUND},
    )
    async def page(request: Request) -> Response:
        found = await current()
        if wants_json(request.headers.get("accept", "")):
            make = partial(msgspec.json.encode, found.status)
            return await _answer(request, found, JSON, make)
        return await _answer(request, found, _HTML, lambda: _page(found.status))

    @routes.get(
        "/status/incidents.atom",
        summary="The incidents of the public status page as an Atom feed; no token needed",
        response_class=Response,
        responses={**_described(ATOM, "The feed"), **NOT_FOUND},
    )
    async def feed(request: Request) -> Response:
        found = await current()
        return await _answer(request, found, ATOM, lambda: render_feed(found.status).encode())

    @routes.get(
        "/badge/{job_id}/state.svg",
        summary="A badge of the state of a site of the public status page; no token needed",
        response_class=Response,
        responses={**_described(_SVG, "The badge"), **NOT_FOUND},
    )
    async def state(request: Request, job_id: JobId) -> Response:
        shown = await site(job_id)
        return _badge(request, state_badge(shown.name, shown.state))

    @routes.get(
        "/badge/{job_id}/uptime.svg",
        summary="A badge of the uptime of a site of the public status page; no token needed",
        response_class=Response,
        responses={**_described(_SVG, "The badge"), **NOT_FOUND},
    )
    async def uptime(request: Request, job_id: JobId, span: Span = "24h") -> Response:
        shown = await site(job_id)
        share = None if shown.history is None else shown.history.uptime[span]
        return _badge(request, uptime_badge(shown.name, span, share))

    return routes


def _page(status: PublicStatus) -> bytes:
    return with_version(render_page(status)).encode()


def _described(media_type: str, description: str) -> dict[int | str, dict[str, Any]]:
    content = {media_type: {"schema": {"type": "string"}}}
    return {
        200: {"description": description, "content": content},
        304: {"description": "The client has it already (If-None-Match)"},
    }


async def _answer(
    request: Request, found: Rendered, media_type: str, make: Callable[[], bytes]
) -> Response:
    """Answer with what is made of a status once, and compressed once, for all."""
    body = await found.made(media_type, make)
    etag = await found.made(f"{media_type} etag", lambda: _etag(body).encode())
    headers = {
        "cache-control": f"public, max-age={_KEPT_S}",
        "etag": etag.decode(),
        "vary": "accept, accept-encoding",
    }
    if _known(request, headers["etag"]):
        return Response(status_code=304, headers=headers)
    if len(body) >= _LEAST_COMPRESSED and accepts_gzip(request.headers.get("accept-encoding", "")):
        plain = body
        body = await found.made(f"{media_type} gzip", lambda: gzip.compress(plain, _LEVEL, mtime=0))
        headers["content-encoding"] = "gzip"
        headers["etag"] = f"W/{headers['etag']}"
    return Response(body, media_type=media_type, headers=headers)


def _badge(request: Request, svg: str) -> Response:
    body = svg.encode()
    headers = {
        "cache-control": f"public, max-age={_BADGE_KEPT_S}",
        "etag": _etag(body),
        # For the pages of others.
        "cross-origin-resource-policy": "cross-origin",
    }
    if _known(request, headers["etag"]):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=_SVG, headers=headers)


def _etag(body: bytes) -> str:
    return f'"{hashlib.blake2b(body, digest_size=9).hexdigest()}"'


def _known(request: Request, etag: str) -> bool:
    given = request.headers.get("if-none-match", "").split(",")
    return bool({"*", etag} & {item.strip().removeprefix("W/") for item in given})
