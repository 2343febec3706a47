"""Logs and notifications: GET /log, GET /notification, and the log actions over WS /ws."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict

from monitor.logs.actions import (
    DEFAULT_LIMIT,
    MAX_EXCLUDES,
    MAX_LIMIT,
    filter_of,
    parse_upload,
    query,
)
from monitor.logs.answers import ActionError, ErrorCode, Head
from monitor.logs.filters import Filter, Kind
from monitor.logs.heads import head_of
from monitor.logs.histogram import MAX_BARS, Histogram
from monitor.logs.part import Logs
from monitor.logs.reader import LogReader
from monitor.tokens import Principal
from monitor.web.http.answers import json_answer
from monitor.web.http.app import Requester
from monitor.web.http.bodies import without_mark
from monitor.web.http.parameters import known_parameters
from monitor.web.http.problems import TOO_LARGE, TOO_MANY_REQUESTS, Problem
from monitor.web.http.schemas import answer, body
from monitor.web.http.sockets import Handler
from monitor.web.http.websocket import WebSocket
from monitor.web.live.log_follower import log_session

__all__ = ["router", "websocket"]

_STATUS = {
    ErrorCode.BAD_REQUEST: 422,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.TOO_LARGE: 413,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.UNAVAILABLE: 503,
}


class EntriesQuery(BaseModel):
    """The parameters that choose entries."""

    model_config = ConfigDict(extra="forbid")

    timewindow: float | None = None
    sender: str | None = None
    level: str | None = None
    min_level: str | None = None
    contains: str | None = None
    excludes: Annotated[list[str] | None, Query(alias="not", max_length=MAX_EXCLUDES)] = None
    regexp: str | None = None
    since: Annotated[str | None, Query(alias="from")] = None
    until: str | None = None


class LogQuery(EntriesQuery):
    """The parameters of GET /log and GET /notification."""

    around: str | None = None
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT
    cursor: str | None = None


class HistogramQuery(EntriesQuery):
    """The parameters of GET /log/histogram and GET /notification/histogram."""

    bars: Annotated[int, Query(ge=1, le=MAX_BARS)] = 60


class LogEntry(BaseModel):
    """One entry; ``time`` in seconds since the epoch."""

    level: str
    time: float
    sender: str
    message: str


class LogPage(BaseModel):
    """A page of log entries, newest first, as the action getLogs answers."""

    action: str
    status: str
    logs: list[LogEntry]
    cursor: str | None


class NotificationPage(BaseModel):
    """A page of notifications, newest first, as the action getNotifications answers."""

    action: str
    status: str
    notifications: list[LogEntry]
    cursor: str | None


class Rejected(BaseModel):
    """An entry that was not stored."""

    index: int
    reason: str
    message: str


class Uploaded(BaseModel):
    """The answer to an upload, as the action uploadLogs gives it."""

    action: str
    status: str
    accepted: int
    rejected: list[Rejected]


class UploadBody(msgspec.Struct):
    """One entry, or several under ``logs`` (or ``notifications``), as in the action uploadLogs."""

    level: str | int | None = None
    time: float | str | None = None
    sender: str | None = None
    message: str | None = None
    upload_id: str | None = None
    logs: list[dict[str, Any]] | None = None
    notifications: list[dict[str, Any]] | None = None


def router(logs: Logs | LogReader) -> APIRouter:
    """Return the routes over the logs part."""
    routes = APIRouter(tags=["logs"])

    async def admitted(request: Request, who: Requester) -> None:
        peer = request.client.host if request.client is not None else ""
        with _problems():
            logs.service.admit(who, peer=peer, size=len(request.scope["query_string"]))

    # Rate limits come first, so that invalid requests count, too.
    checked = [Depends(admitted), Depends(known_parameters)]
    limited: Any = {"dependencies": checked, "responses": TOO_MANY_REQUESTS}

    @routes.get("/log", summary="Log entries, newest first", response_model=LogPage, **limited)
    async def log(asked: Annotated[LogQuery, Query()], who: Requester) -> Response:
        return await _list(logs, Kind.LOGS, "getLogs", asked, who)

    @routes.get(
        "/notification",
        summary="Notifications, newest first",
        response_model=NotificationPage,
        **limited,
    )
    async def notification(asked: Annotated[LogQuery, Query()], who: Requester) -> Response:
        return await _list(logs, Kind.NOTIFICATIONS, "getNotifications", asked, who)

    histograms: Any = {
        "response_class": Response,
        "dependencies": checked,
        "responses": {**answer(Histogram, "The counts"), **TOO_MANY_REQUESTS},
    }

    @routes.get(
        "/log/histogram", summary="How many log entries match, by time and level", **histograms
    )
    async def log_histogram(
        request: Request, asked: Annotated[HistogramQuery, Query()], who: Requester
    ) -> Response:
        return json_answer(request, await _histogram(logs, Kind.LOGS, asked, who))

    @routes.get(
        "/notification/histogram",
        summary="How many notifications match, by time and level",
        **histograms,
    )
    async def notification_histogram(
        request: Request, asked: Annotated[HistogramQuery, Query()], who: Requester
    ) -> Response:
        return json_answer(request, await _histogram(logs, Kind.NOTIFICATIONS, asked, who))

    uploads: Any = {
        "response_model": Uploaded,
        "responses": {**TOO_LARGE, **TOO_MANY_REQUESTS},
        "dependencies": [Depends(known_parameters)],
        "openapi_extra": body(UploadBody),
    }

    @routes.post("/log", summary="Upload log entries, as the action uploadLogs does", **uploads)
    async def upload_logs(request: Request, who: Requester) -> Response:
        return await _upload(logs, Kind.LOGS, request, who)

    @routes.post(
        "/notification",
        summary="Upload notifications, as the action uploadNotifications does",
        **uploads,
    )
    async def upload_notifications(request: Request, who: Requester) -> Response:
        return await _upload(logs, Kind.NOTIFICATIONS, request, who)

    return routes


async def _upload(logs: Logs | LogReader, kind: Kind, request: Request, who: Principal) -> Response:
    service = logs.service
    peer = request.client.host if request.client is not None else ""
    content = without_mark(await request.body())
    with _problems():
        try:
            allowances = service.admit(who, peer=peer, size=len(content))
            found = await head_of(content)
            upload = parse_upload(content, kind, max_batch=service.settings.max_batch, found=found)
            allowances.entries.spend(max(0, len(upload.items) - 1))
            answer = await (await service.upload(upload, who))
        except ActionError as error:
            service.count(error.code)
            raise
    return Response(answer, media_type="application/json")


async def _list(
    logs: Logs | LogReader, kind: Kind, action: str, asked: LogQuery, who: Requester
) -> Response:
    with _problems():
        wanted = query(
            kind,
            _filter(asked),
            timewindow=asked.timewindow,
            since=asked.since,
            until=asked.until,
            around=asked.around,
            limit=asked.limit,
            cursor=asked.cursor,
        )
        body = await logs.service.list(wanted, who, Head(action))
    return Response(body, media_type="application/json")


async def _histogram(
    logs: Logs | LogReader, kind: Kind, asked: HistogramQuery, who: Requester
) -> Histogram:
    with _problems():
        wanted = query(
            kind,
            _filter(asked),
            timewindow=asked.timewindow,
            since=asked.since,
            until=asked.until,
        )
        return await logs.service.histogram(wanted, who, bars=asked.bars)


def _filter(asked: LogQuery | HistogramQuery) -> Filter:
    return filter_of(
        asked.sender,
        _level(asked.level),
        _level(asked.min_level),
        asked.contains,
        asked.excludes or (),
        regexp=asked.regexp,
    )


@contextmanager
def _problems() -> Iterator[None]:
    """Raise the error of an action as a problem."""
    try:
        yield
    except ActionError as error:
        headers = None
        if error.retry_after is not None:
            headers = {"retry-after": str(math.ceil(error.retry_after))}
        status = _STATUS.get(error.code, 500)
        members: dict[str, Any] = {"code": error.code}
        if error.rejected is not None:
            members |= {"accepted": 0, "rejected": error.rejected}
        raise Problem(status, error.message, headers=headers, **members) from None


def _level(text: str | None) -> str | int | None:
    # No level has more digits, and int() refuses thousands of them.
    if text is not None and text.isascii() and text.isdigit() and len(text) < 9:
        return int(text)
    return text


def websocket(logs: Logs | LogReader) -> Handler:
    """Return the handler of WS /ws."""

    async def serve(connection: WebSocket) -> None:
        session = await log_session(logs, connection)
        try:
            try:
                while True:
                    await session.receive(await connection.receive(), connection.principal)
                    await connection.writable()
            finally:
                # At a stop, too: received entries are committed, and the client gets the answers.
                if connection.is_open:
                    await session.answered()
        finally:
            session.close()

    return serve
