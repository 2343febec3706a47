"""GET /topic and /consumer: what is on the bus, in the spool or in Kafka, and who reads it."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request, Response

from monitor.bus import Record
from monitor.bus.extents import ConsumerGroup, Page, TopicExtent, UnknownTopicError
from monitor.bus.look import TopicLook
from monitor.errors import MonitorError
from monitor.store.cursor import Number, cursor_of
from monitor.web.http.answers import item_list, parse_cursor
from monitor.web.http.app import admin_only
from monitor.web.http.parameters import known_parameters
from monitor.web.http.problems import NOT_FOUND, Problem
from monitor.web.http.schemas import listed

__all__ = ["router"]

T = TypeVar("T")

Offset = Annotated[int, Query(ge=0, le=2**63 - 1)]


class TopicMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message of a topic; ``value`` is its JSON, or else its text.

    ``timestamp`` is when it was published, in s since the epoch.
    """

    partition: int
    offset: int
    timestamp: float
    key: str | None
    headers: Mapping[str, str]
    value: Any


def router(look: TopicLook) -> APIRouter:
    """Return the routes for the bus."""
    routes = APIRouter(tags=["bus"], dependencies=[Depends(admin_only), Depends(known_parameters)])

    @routes.get(
        "/topic",
        summary="The topics of the bus with their partitions and offsets, by name; for admins",
        response_class=Response,
        responses=listed(TopicExtent, "All topics"),
    )
    async def topics(request: Request) -> Response:
        return item_list(request, await _looked(look.topics()), None)

    @routes.get(
        "/consumer",
        summary="Who reads the topics of the bus, and how many messages are left; for admins",
        response_class=Response,
        responses=listed(ConsumerGroup, "All consumers, by topic and group"),
    )
    async def consumers(request: Request) -> Response:
        return item_list(request, await _looked(look.consumers()), None)

    @routes.get(
        "/topic/{name}",
        summary="Messages of a topic from an offset on, or the newest ones; for admins",
        response_class=Response,
        responses=listed(TopicMessage, "A page of messages, oldest first") | NOT_FOUND,
    )
    async def messages(
        request: Request,
        name: Annotated[str, Path(min_length=1, max_length=249)],
        *,
        partition: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None,
        offset: Offset | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        cursor: str | None = None,
    ) -> Response:
        if cursor is not None:
            partition, offset = parse_cursor(cursor, tuple[_Partition, Number])
        page: Page = await _looked(
            look.messages(name, partition=partition, offset=offset, limit=limit)
        )
        more = None if page.more is None else cursor_of(*page.more)
        return item_list(request, [_message(record) for record in page.records], more)

    return routes


_Partition = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


async def _looked(answer: Awaitable[T]) -> T:
    try:
        return await answer
    except UnknownTopicError as error:
        raise Problem(404, str(error)) from None
    except MonitorError as error:
        raise Problem(503, str(error)) from None


def _message(record: Record) -> TopicMessage:
    return TopicMessage(
        partition=record.partition,
        offset=record.offset,
        timestamp=record.timestamp,
        key=record.key,
        headers=record.headers,
        value=_value(record.value),
    )


def _value(value: bytes) -> Any:
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return value.decode("utf-8", "backslashreplace")
