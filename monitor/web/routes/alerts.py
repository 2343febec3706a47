"""Incidents and silences; and a test of a receiver, if this daemon has the alerts part."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from monitor.alerts.acknowledging import acknowledge
from monitor.alerts.incidents import Incident
from monitor.alerts.maintenance import occurrences
from monitor.alerts.part import Alerts
from monitor.alerts.reading import IncidentState, find_incident, list_incidents
from monitor.alerts.settings import Match
from monitor.alerts.silences import Silence, add_silence, delete_silence, list_silences
from monitor.errors import SettingError
from monitor.files.json_keys import require_keys_once
from monitor.store import Connection, Store
from monitor.store.cursor import Number, cursor_of
from monitor.validation import decoding_problem
from monitor.web.http.answers import item_list, json_answer, parse_cursor
from monitor.web.http.app import Requester
from monitor.web.http.bodies import short_body
from monitor.web.http.parameters import known_parameters
from monitor.web.http.problems import CONFLICT, NOT_FOUND, Problem, from_database
from monitor.web.http.schemas import answer, body, listed
from monitor.web.routes.history import Instant, read

__all__ = ["NewSilence", "ReceiverTest", "router"]

T = TypeVar("T")

_TIMEOUT_S = 10.0
# A silence ends; a mistyped one should do so within a person's memory.
_LONGEST_S = 366 * 86400.0
# A window comes once in it; where clocks are set, a little later.
_WEEK_S = 8 * 86400.0
_NOBODY = "anonymous"


class NewSilence(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is not sent: ``until`` a time (s since the epoch), or ``for`` some seconds.

    It begins now, or at ``from``.
    """

    from_: float | None = msgspec.field(name="from", default=None)
    until: float | None = None
    for_: float | None = msgspec.field(name="for", default=None)
    match: Match = Match()
    comment: Annotated[str, msgspec.Meta(max_length=1000)] = ""


class KnownReceiver(msgspec.Struct, frozen=True, kw_only=True):
    """A receiver by its name; where it leads to is secret."""

    name: str


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A weekly maintenance window of the config, and the next time of it (s since the epoch)."""

    name: str
    match: Match
    begins_at: float
    ends_at: float


class TargetTest(msgspec.Struct, frozen=True, kw_only=True):
    """What one target of a receiver said."""

    accepted: bool
    said: str


class ReceiverTest(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a test: ``accepted`` if all targets accepted it."""

    receiver: str
    accepted: bool
    answers: list[TargetTest]


def router(store: Store, part: Alerts | None) -> APIRouter:
    """Return the routes over the tables of the alerts, of this daemon's ``part`` if it has one."""
    routes = APIRouter(tags=["alerts"], dependencies=[Depends(known_parameters)])

    @routes.get(
        "/incident",
        summary="Incidents, newest first",
        response_class=Response,
        responses=listed(Incident, "A page of incidents"),
    )
    async def incidents(
        request: Request,
        *,
        state: IncidentState | None = None,
        rule: str | None = None,
        job: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
        since: Instant = 0.0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        cursor: str | None = None,
    ) -> Response:
        before = 2**63 - 1 if cursor is None else parse_cursor(cursor, tuple[Number])[0]
        found = await read(
            store,
            partial(
                list_incidents,
                state=state,
                rule=_storable("query.rule", rule),
                job=job,
                since=since,
                before=before,
                limit=limit + 1,
            ),
        )
        more = cursor_of(found[limit - 1][0]) if len(found) > limit else None
        return item_list(request, [item for _, item in found[:limit]], more)

    @routes.get(
        "/incident/{incident_id}",
        summary="An incident, and what was sent of it",
        response_class=Response,
        responses={**answer(Incident, "The incident"), **NOT_FOUND},
    )
    async def incident(request: Request, incident_id: str) -> Response:
        found = await read(store, partial(find_incident, incident_id=_id(incident_id)))
        if found is None:
            raise _no_incident(incident_id)
        return json_answer(request, found)

    @routes.post(
        "/incident/{incident_id}/acknowledge",
        summary="Stop the repeats of an incident, and keep who knows of it",
        response_class=Response,
        responses={**answer(Incident, "The incident"), **NOT_FOUND, **CONFLICT},
    )
    async def acknowledged(request: Request, incident_id: str, who: Requester) -> Response:
        found = await _write(
            store,
            partial(
                acknowledge,
                incident_id=_id(incident_id),
                by=who.name or _NOBODY,
                now=time.time(),
            ),
        )
        if found is None:
            raise _no_incident(incident_id)
        if found.acknowledged_at is None:
            raise Problem(409, f"incident {incident_id} is resolved")
        return json_answer(request, found)

    @routes.get(
        "/silence",
        summary="Silences that have not ended, newest first",
        response_class=Response,
        responses=listed(Silence, "All silences"),
    )
    async def silences(request: Request) -> Response:
        found = await read(store, partial(list_silences, now=time.time()))
        return item_list(request, found, None)

    @routes.post(
        "/silence",
        summary="Send nothing about some subjects for a time",
        status_code=201,
        response_class=Response,
        responses={201: answer(Silence, "The silence")[200]},
        openapi_extra=body(NewSilence),
    )
    async def silence(request: Request, who: Requester) -> Response:
        given = await _given(request)
        now = time.time()
        made = await _write(
            store,
            partial(
                add_silence,
                match=given.match,
                starts_at=given.from_,
                until=_end(given, now),
                comment=given.comment,
                by=who.name or _NOBODY,
                now=now,
            ),
        )
        response = json_answer(request, made)
        response.status_code = 201
        return response

    @routes.delete(
        "/silence/{silence_id}",
        summary="End a silence",
        status_code=204,
        response_class=Response,
        responses=NOT_FOUND,
    )
    async def unsilence(silence_id: str) -> Response:
        found = await _write(
            store, partial(delete_silence, silence_id=_id(silence_id), now=time.time())
        )
        if not found:
            raise Problem(404, f"there is no silence {silence_id[:50]}")
        return Response(status_code=204)

    if part is not None:

        @routes.get(
            "/maintenance",
            summary="The maintenance windows of the config, the next one first",
            response_class=Response,
            responses=listed(Window, "All windows"),
        )
        async def windows(request: Request) -> Response:
            now = time.time()
            found = []
            for window in part.maintenance:
                # Of the one week, clocks that are set may leave out the hour.
                begins_at, ends_at = occurrences(window, now, now + 2 * _WEEK_S)[0]
                found.append(
                    Window(
                        name=window.name,
                        match=window.match,
                        begins_at=begins_at,
                        ends_at=ends_at,
                    )
                )
            return item_list(request, sorted(found, key=lambda each: each.begins_at), None)

        @routes.get(
            "/alert/receiver",
            summary="The receivers of messages",
            response_class=Response,
            responses=listed(KnownReceiver, "All receivers, as in the config"),
        )
        async def receivers(request: Request) -> Response:
            found = [KnownReceiver(name=name) for name in part.receivers()]
            return item_list(request, found, None)

        @routes.post(
            "/alert/test",
            summary="Send a test to a receiver, and return what it said",
            response_class=Response,
            responses={**answer(ReceiverTest, "What the receiver said"), **NOT_FOUND},
        )
        async def test(request: Request, receiver: str) -> Response:
            try:
                outcomes = await part.test(receiver)
            except KeyError:
                known = ", ".join(part.receivers()) or "none"
                raise Problem(404, f"there is no such receiver; known: {known}") from None
            answers = [TargetTest(accepted=each.accepted, said=each.said) for each in outcomes]
            found = ReceiverTest(
                receiver=receiver,
                accepted=all(each.accepted for each in answers),
                answers=answers,
            )
            return json_answer(request, found)

    return routes


async def _write(store: Store, function: Callable[[Connection], T]) -> T:
    with from_database():
        return await store.transaction(function, timeout=_TIMEOUT_S)


async def _given(request: Request) -> NewSilence:
    body = await short_body(request)
    try:
        given = msgspec.json.decode(body, type=NewSilence)
        require_keys_once(body)
    except SettingError as error:
        raise Problem(422, str(error.under("body"))) from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(422, f"body: {decoding_problem(error, NewSilence)}") from None
    try:
        given.match.verify()
    except SettingError as error:
        raise Problem(422, str(error.under("body", "match"))) from None
    texts: list[Any] = [given.comment, *given.match.tags, given.match.sender]
    for text in (*texts, given.match.subject, given.match.rule):
        _storable("body", text)
    return given


def _end(given: NewSilence, now: float) -> float:
    if (given.until is None) == (given.for_ is None):
        raise Problem(422, "body: needs either until or for")
    start = now if given.from_ is None else given.from_
    end = given.until if given.until is not None else start + (given.for_ or 0.0)
    # A start that is past is that of maintenance under way, an old one a mistake.
    if not now - _LONGEST_S <= start < end:
        raise Problem(422, "body.from: must be before the end")
    if not now < end <= now + _LONGEST_S:
        raise Problem(422, "body: the end must be in the future, within a year")
    return end


def _no_incident(incident_id: str) -> Problem:
    return Problem(404, f"there is no incident {incident_id[:50]}")


def _id(text: str) -> str:
    # No id has other letters, and no database takes all of them.
    return text if text.isascii() and text.isalnum() else ""


def _storable(where: str, text: str | None) -> str | None:
    """Return a text that a database can hold; others are a problem."""
    if text is not None and ("\0" in text or any("\ud800" <= c <= "\udfff" for c in text)):
        raise Problem(422, f"{where}: contains NUL or an unpaired surrogate")
    return text
