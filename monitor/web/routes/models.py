"""GET /model-update: the last model events."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from monitor.store import Connection, Store
from monitor.store.cursor import Number, cursor_of
from monitor.web.http.answers import item_list, parse_cursor
from monitor.web.http.parameters import known_parameters
from monitor.web.http.schemas import listed
from monitor.web.routes.history import Instant, read

__all__ = ["ModelUpdate", "router"]


class ModelUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """A model event: its CloudEvents attributes, and its data as on the topic."""

    id: str
    type: str
    source: str
    time: float
    data: msgspec.Raw


def router(store: Store) -> APIRouter:
    """Return the routes for the table that the cluster part writes."""
    routes = APIRouter(tags=["models"], dependencies=[Depends(known_parameters)])

    @routes.get(
        "/model-update",
        summary="Model events, newest first",
        response_class=Response,
        responses=listed(ModelUpdate, "A page of model events"),
    )
    async def model_updates(
        request: Request,
        since: Instant = 0.0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        cursor: str | None = None,
    ) -> Response:
        before = 2**63 - 1 if cursor is None else parse_cursor(cursor, tuple[Number])[0]

        def select(connection: Connection) -> list[tuple[int, ModelUpdate]]:
            rows = connection.query(
                "SELECT seq, id, type, source, time, data FROM model_event"
                " WHERE time >= %s AND seq < %s ORDER BY seq DESC LIMIT %s",
                (since, before, limit + 1),
            )
            return [
                (seq, ModelUpdate(id=id_, type=type_, source=source, time=time, data=_raw(data)))
                for seq, id_, type_, source, time, data in rows
            ]

        found = await read(store, select)
        more = cursor_of(found[limit - 1][0]) if len(found) > limit else None
        return item_list(request, [item for _, item in found[:limit]], more)

    return routes


def _raw(data: str) -> msgspec.Raw:
    return msgspec.Raw(data.encode())
