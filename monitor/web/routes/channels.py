"""GET /channel: the relay's channels and their counts."""

from __future__ import annotations

import heapq
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from monitor.relay.part import Relay
from monitor.store.cursor import cursor_of
from monitor.web.http.answers import item_list, parse_cursor
from monitor.web.http.app import admin_only
from monitor.web.http.parameters import known_parameters
from monitor.web.http.schemas import listed
from monitor.web.live.channels import ChannelEntry, channel_entry

__all__ = ["router"]


def router(relay: Relay) -> APIRouter:
    """Return the routes for the relay."""
    routes = APIRouter(
        tags=["relay"], dependencies=[Depends(admin_only), Depends(known_parameters)]
    )

    @routes.get(
        "/channel",
        summary="The relay's channels and their counts, by name; for admins",
        response_class=Response,
        responses=listed(ChannelEntry, "A page of channels"),
    )
    async def channels(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
        cursor: str | None = None,
    ) -> Response:
        after = (
            b"" if cursor is None else bytes.fromhex(parse_cursor(cursor, tuple[_Hexadecimal])[0])
        )
        found = heapq.nsmallest(
            limit + 1,
            (channel for channel in relay.channels if channel.name > after),
            key=lambda channel: channel.name,
        )
        items = [channel_entry(relay, channel) for channel in found[:limit]]
        more = cursor_of(found[limit - 1].name.hex()) if len(found) > limit else None
        return item_list(request, items, more)

    return routes


_Hexadecimal = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{2})*$")]
