"""GET /rejected and POST /rejected/replay: messages that could not be counted, and another try."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from monitor.aggregation.replay import (
    RejectedMessage,
    Replayed,
    Which,
    rejected_messages,
    replay,
)
from monitor.aggregation.settings import AggregationSettings
from monitor.store import Store
from monitor.store.cursor import Number, Time, cursor_of
from monitor.web.http.answers import item_list, json_answer, parse_cursor
from monitor.web.http.app import admin_only
from monitor.web.http.parameters import known_parameters
from monitor.web.http.problems import from_database
from monitor.web.http.schemas import answer, listed
from monitor.web.routes.history import read

__all__ = ["router"]

Text = Annotated[str, Query(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]
Partition = Annotated[int, Query(ge=0, le=2**31 - 1)]
Offset = Annotated[int, Query(ge=0, le=2**63 - 1)]
# Clients and proxies wait for an answer for half a minute; a transaction may take long, too.
_PATIENCE_S = 5.0
_Name = Annotated[str, msgspec.Meta(pattern=r"^[^\x00]*$")]


def router(store: Store, settings: Callable[[], AggregationSettings]) -> APIRouter:
    """Return the routes; ``settings`` returns those of the aggregation that are in force."""
    routes = APIRouter(
        tags=["aggregation"], dependencies=[Depends(admin_only), Depends(known_parameters)]
    )

    @routes.get(
        "/rejected",
        summary="Messages that could not be counted, rejected last first; for admins",
        response_class=Response,
        responses=listed(RejectedMessage, "A page of messages"),
    )
    async def rejected(
        request: Request,
        *,
        topic: Text | None = None,
        partition: Partition | None = None,
        offset: Offset | None = None,
        reason: Text | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        cursor: str | None = None,
    ) -> Response:
        which = Which(topic=topic, partition=partition, offset=offset, reason=reason)
        before = (
            None if cursor is None else parse_cursor(cursor, tuple[Time, _Name, Number, Number])
        )
        found = await read(
            store,
            lambda connection: rejected_messages(connection, which, before=before, limit=limit + 1),
        )
        items = found[:limit]
        more = None
        if len(found) > limit:
            last = items[-1]
            more = cursor_of(last.rejected_at, last.topic, last.partition, last.offset)
        return item_list(request, items, more)

    @routes.post(
        "/rejected/replay",
        summary="Try rejected messages again: what is a result now is counted, once; for admins",
        response_class=Response,
        responses=answer(Replayed, "How many were counted"),
    )
    async def again(
        request: Request,
        *,
        topic: Text | None = None,
        partition: Partition | None = None,
        offset: Offset | None = None,
        reason: Text | None = None,
        cursor: str | None = None,
    ) -> Response:
        which = Which(topic=topic, partition=partition, offset=offset, reason=reason)
        after = None if cursor is None else parse_cursor(cursor, tuple[_Name, Number, Number])
        with from_database():
            done = await replay(store, settings(), which, after=after, patience_s=_PATIENCE_S)
        return json_answer(request, done)

    return routes
