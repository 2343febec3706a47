"""Heartbeats: jobs elsewhere that report, and the keys that they report with."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from typing import Annotated, Any, Literal, get_args
from urllib.parse import parse_qsl

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from monitor.backoff import Backoff
from monitor.errors import MonitorError
from monitor.log_limits import OutageLog
from monitor.probes.beats import Beat
from monitor.probes.beats_table import key_hash, load_beats, load_keys, take_beat
from monitor.store import RETRY_S, Store
from monitor.web.http.access import BEATS, too_many
from monitor.web.http.answers import json_answer
from monitor.web.http.app import audited
from monitor.web.http.attempts import Attempts
from monitor.web.http.parameters import known_parameters
from monitor.web.http.problems import CONFLICT, NOT_FOUND, TOO_MANY_REQUESTS, Problem, from_database
from monitor.web.http.schemas import answer
from monitor.web.jobs.registry import JobRegistry
from monitor.web.jobs.sites import Sites
from monitor.web.routes.jobs import JobId, no_job

__all__ = ["Heartbeats", "reported"]

logger = logging.getLogger("monitor.web")

_LONGEST_MESSAGE = 1000
_TIMEOUT_S = 10.0

Status = Literal["up", "down"]
Message = Annotated[str, Query(description=f"cut after {_LONGEST_MESSAGE} characters")]


class HeartbeatKey(msgspec.Struct, frozen=True):
    """A new key, which is shown only this once, and the path to report to."""

    job_id: int
    key: str
    path: str


class Taken(msgspec.Struct, frozen=True):
    """The job whose heartbeat was taken."""

    job_id: int


class Heartbeats:
    """The routes, and what reads the last beats after a start.

    Each request without a key that is known costs a transaction, so these are counted as
    ``attempts``.
    """

    def __init__(self, book: JobRegistry, store: Store, attempts: Attempts) -> None:
        self._book = book
        self._store = store
        self._sites = Sites(store, book)
        self._attempts = attempts
        self._keys = book.beat_keys
        self._loaded = False

    async def load(self) -> None:
        """Read the last beats from the database, and try until that succeeds."""
        outage, backoff = OutageLog(logger), Backoff(*RETRY_S)
        while True:
            try:
                found = await self._store.read(load_beats, timeout=_TIMEOUT_S)
                self._keys |= await self._store.read(load_keys, timeout=_TIMEOUT_S)
                self._loaded = True
                break
            except MonitorError as error:
                outage.failed(f"cannot load the last heartbeats: {error}", cause=error)
                await asyncio.sleep(backoff.next_delay())
        outage.recovered("last heartbeats loaded")
        runner = self._book.probes.runner
        if runner is not None:
            for job_id, beat in found.items():
                runner.beats.restore(job_id, beat, time.time())

    def router(self) -> APIRouter:
        """Return the routes."""
        routes = APIRouter(tags=["jobs"], dependencies=[Depends(known_parameters)])

        @routes.post(
            "/job/{job_id}/key",
            summary="Make a new key for the heartbeats of a job; the former one stops working",
            response_class=Response,
            responses={**answer(HeartbeatKey, "The key"), **NOT_FOUND, **CONFLICT},
        )
        async def key(request: Request, job_id: JobId) -> Response:
            try:
                job = self._book.job(job_id)
            except KeyError:
                raise no_job(job_id) from None
            if job.kind != "heartbeat":
                raise Problem(409, f"job {job_id} is of kind {job.kind} and has no heartbeats")
            with from_database():
                made = await self._sites.new_key(job_id)
            audited(request, f"made a new heartbeat key for job {job_id}")
            return json_answer(request, HeartbeatKey(job_id, made, f"{BEATS}{made}"))

        @routes.get(
            BEATS + "{key}",
            summary="Report a heartbeat; the key is the credential",
            response_class=Response,
            responses={
                **answer(Taken, "The heartbeat was taken"),
                **NOT_FOUND,
                **TOO_MANY_REQUESTS,
            },
        )
        async def beat(
            request: Request, key: str, status: Status = "up", message: Message = ""
        ) -> Response:
            return await self._take(request, key, status, message)

        @routes.post(
            BEATS + "{key}",
            summary="Report a heartbeat, as GET does, or with status and message in a form or JSON",
            response_class=Response,
            responses={
                **answer(Taken, "The heartbeat was taken"),
                **NOT_FOUND,
                **TOO_MANY_REQUESTS,
            },
        )
        async def posted(
            request: Request, key: str, status: Status = "up", message: Message = ""
        ) -> Response:
            asked = {"status": status, "message": message}
            asked |= reported(request.headers.get("content-type", ""), await request.body())
            asked |= request.query_params
            if asked["status"] not in get_args(Status):
                raise Problem(422, "status: expected up or down")
            return await self._take(request, key, asked["status"], asked["message"])

        return routes

    async def _take(self, request: Request, key: str, status: str, message: str) -> Response:
        came_at = time.monotonic()
        message = message.replace("\0", "")[:_LONGEST_MESSAGE]
        taken = Beat(time.time(), status == "up", message)
        hash_, keys = key_hash(key), self._keys
        host = request.client.host if request.client is not None else ""
        is_new = self._loaded and hash_ not in keys
        if is_new:
            wait_s = self._attempts.fail(host, time.monotonic())
            if wait_s:
                refusal = too_many(wait_s)
                raise Problem(refusal.status, refusal.detail, headers=refusal.headers)
        job_id = keys.get(hash_)
        try:
            with from_database():
                job_id = await self._store.transaction(
                    lambda found: take_beat(found, key, taken), timeout=_TIMEOUT_S
                )
        except Problem:
            # Without the database a beat counts all the same, until the daemon stops.
            if job_id is None:
                raise
        if job_id is None:
            keys.pop(hash_, None)
            raise Problem(404, "no job has this key")
        if is_new:
            self._attempts.forgive(host)
        keys[hash_] = job_id
        runner = self._book.probes.runner
        if runner is not None:
            runner.beat(job_id, taken, came_at)
        return json_answer(request, Taken(job_id))


def reported(content_type: str, body: bytes) -> dict[str, str]:
    """Return what a form or a JSON object says of ``status`` and ``message``, and of no more."""
    kind = content_type.partition(";")[0].strip().lower()
    found: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        if kind == "application/x-www-form-urlencoded":
            found = dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
        elif kind == "application/json":
            found = json.loads(body)
    if not isinstance(found, dict):
        return {}
    return {key: str(found[key]) for key in ("status", "message") if key in found}
