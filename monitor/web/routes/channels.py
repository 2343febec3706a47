"""GET /channel: the relay's channels and their counts."""

from __future__ import annotations

import heapq
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from monitor.relay.channel import Channel
from monitor.relay.part import Relay
from monitor.web.answers import cursor_of, item_list, parse_cursor
from monitor.web.app import admin_only
from monitor.web.parameters import known_parameters
from monitor.web.schemas import listed

__all__ = ["ChannelEntry", "channel_entry", "router"]


class ChannelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A channel: messages ever and still kept, who reads it, s since its last message."""

    name: str
    messages: int
    kept: int
    size_bytes: int
    subscribers: int
    ended: bool
    idle: float | None


def channel_entry(relay: Relay, channel: Channel) -> ChannelEntry:
    """Return a channel as it stands."""
    at = relay.channels.last_message_at(channel)
    return ChannelEntry(
        name=channel.name.decode(errors="replace"),
        messages=channel.end,
        kept=len(channel),
        size_bytes=channel.size_bytes,
        subscribers=len(channel.subscribers) + len(channel.followers),
        ended=channel.ended,
        idle=None if at is None else max(0.0, round(relay.now() - at, 3)),
    )


def router(relay: Relay) -> APIRouter:
    """Return the routes over the relay."""
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
        after = b"" if cursor is None else bytes.fromhex(_hexadecimal(cursor))
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


def _hexadecimal(cursor: str) -> str:
    found: str = parse_cursor(cursor, tuple[_Hexadecimal])[0]
    return found
