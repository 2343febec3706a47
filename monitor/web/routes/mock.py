"""GET /website_mock: a site to try probes on, which answers as the request says."""

from __future__ import annotations

import asyncio
import random
from typing import Annotated

from fastapi import APIRouter, Query, Response

__all__ = ["router"]

# A random status is one of these.
_STATUSES = (200, 200, 200, 200, 200, 200, 200, 404, 500, 503)
_LONGEST_RANDOM_DELAY_S = 0.3
_LARGEST_RANDOM_BYTES = 20_000
_NO_BODY = (204, 205, 304)


def router() -> APIRouter:
    """Return the route."""
    routes = APIRouter(tags=["try out"])

    @routes.get(
        "/website_mock",
        summary="A fake site: its status, delay (s) and size (bytes) are random unless given",
        response_class=Response,
        responses={
            "default": {
                "description": "The requested status and size",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            }
        },
    )
    async def website_mock(
        status: Annotated[int | None, Query(ge=200, le=599)] = None,
        delay: Annotated[float | None, Query(ge=0, le=60)] = None,
        size: Annotated[int | None, Query(ge=0, le=10_000_000)] = None,
    ) -> Response:
        choose = random.Random()  # noqa: S311 - it need not be secret
        found = choose.choice(_STATUSES) if status is None else status
        wait = choose.uniform(0, _LONGEST_RANDOM_DELAY_S) if delay is None else delay
        length = choose.randint(0, _LARGEST_RANDOM_BYTES) if size is None else size
        await asyncio.sleep(wait)
        body = b"" if found in _NO_BODY else b"m" * length
        return Response(body, found, media_type="text/plain", headers={"cache-control": "no-store"})

    return routes
