"""Logs and notifications: GET /log, GET /notification, and the log actions over WS /ws."""

from __future__ import annotations

import math
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict

from monitor.logs.actions import DEFAULT_LIMIT, MAX_LIMIT, filter_of, query
from monitor.logs.answers import ActionError, ErrorCode, Head
from monitor.logs.filters import Kind
from monitor.logs.part import Logs
from monitor.logs.reader import LogReader
from monitor.web.http.app import Requester
from monitor.web.http.parameters import known_parameters
from monitor.web.http.problems import TOO_MANY_REQUESTS, Problem
from monitor.web.http.sockets import Handler
from monitor.web.http.websocket import WebSocket
from monitor.web.live.log_follower import log_session

__all__ = ["router", "websocket"]

_STATUS = {
    ErrorCode.BAD_REQUEST: 422,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.UNAVAILABLE: 503,
}


class LogQuery(BaseModel):
    """The parameters of GET /log and GET /notification."""

    model_config = ConfigDict(extra="forbid")

    timewindow: float | None = None
    sender: str | None = None
    level: str | None = None
    min_level: str | None = None
    contains: str | None = None
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT
    cursor: str | None = None


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


def router(logs: Logs | LogReader) -> APIRouter:
    """Return the routes over the logs part."""
    routes = APIRouter(tags=["logs"])

    async def admitted(request: Request, who: Requester) -> None:
        peer = request.client.host if request.client is not None else ""
        try:
            logs.service.admit(who, peer=peer, size=len(request.scope["query_string"]))
        except ActionError as error:
            raise _problem(error) from None

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

    return routes


async def _list(
    logs: Logs | LogReader, kind: Kind, action: str, asked: LogQuery, who: Requester
) -> Response:
    try:
        wanted = query(
            kind,
            filter_of(asked.sender, _level(asked.level), _level(asked.min_level), asked.contains),
            timewindow=asked.timewindow,
            limit=asked.limit,
            cursor=asked.cursor,
        )
        body = await logs.service.list(wanted, who, Head(action))
    except ActionError as error:
        raise _problem(error) from None
    return Response(body, media_type="application/json")


def _problem(error: ActionError) -> Problem:
    headers = None
    if error.retry_after is not None:
        headers = {"retry-after": str(math.ceil(error.retry_after))}
    status = _STATUS.get(error.code, 500)
    return Problem(status, error.message, headers=headers, code=error.code)


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
