"""Heartbeats: in time, late, reported as failed, and back, even after a restart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from monitor.errors import SettingError
from monitor.probes.beats import Beat, Beats, NoBeatYetError
from monitor.probes.check import Outcome
from monitor.probes.checking import Checks
from monitor.probes.checks import read_job
from monitor.store import DatabaseSettings
from tests.ports import free_port
from tests.servers.daemon import StartDaemon
from tests.servers.postgres import own_server
from tests.store.opened import opened
from tests.web.whole import Whole, whole


@pytest.fixture(scope="module")
def daemon() -> Iterator[Whole]:
    with whole(tokens=True) as running:
        yield running


@pytest.mark.integration_test
def test_what_a_beat_says_may_be_in_its_body_and_of_any_length(daemon: Whole) -> None:
    body = {"kind": "heartbeat", "name": "posted", "interval": 3600}
    created = daemon.request("POST", "/job", json=body).json()
    job_id, path = created["id"], f"/heartbeat/{created['key']}"

    def post(query: str = "", status: int = 200, **options: object) -> None:
        answer = daemon.request("POST", path + query, role=None, **options)
        assert answer.status_code == status, answer.text

    def down(error: str) -> None:
        assert daemon.wait_for_state(job_id, "down")["last"]["error"] == error
        post()
        daemon.wait_for_state(job_id, "up")

    post(data={"status": "down", "message": "of a form"})
    down("reported: of a form")
    post(json={"status": "down", "message": "of JSON", "more": 1})
    down("reported: of JSON")
    post("?status=down&message=of+the+URL", data={"status": "up", "message": "of a form"})
    down("reported: of the URL")
    post("?status=down&message=" + "x" * 3000)
    down("reported: " + "x" * 1000)
    # A program's output reports nothing.
    for said in ("status=down", "{", "[1]", "null", '"down"', '{"a": "status"}', ""):
        for kind in ("text/plain", "application/json"):
            post(data=said, headers={"content-type": kind})
    assert daemon.get(f"/job/{job_id}")["state"] == "up"
    post(status=422, json={"status": "odd"})
    assert daemon.request("PUT", path).status_code == 405
    assert daemon.request("POST", f"//Heartbeat/{created['key']}", role=None).status_code >= 400
    # The key is a credential.
    assert created["key"] not in daemon.daemon.log


@pytest.mark.integration_test
def test_a_job_is_up_while_its_beats_come(daemon: Whole) -> None:
    body = {"kind": "heartbeat", "name": "backup", "interval": 3, "grace": 0.5}
    created = daemon.request("POST", "/job", json=body)
    assert created.status_code == 201, created.text
    job_id, key = created.json()["id"], created.json()["key"]
    assert created.json()["state"] == "unknown"
    assert "key" not in daemon.get(f"/job/{job_id}")
    # The key is the credential, and no token is needed.
    assert daemon.request("GET", f"/heartbeat/{key}", role=None).json() == {"job_id": job_id}
    entry = daemon.wait_for_state(job_id, "up")
    assert entry["last"]["kind"] == "heartbeat"
    entry = daemon.wait_for_state(job_id, "down")
    assert entry["last"]["error"].startswith("late: ")
    assert daemon.request("POST", f"/heartbeat/{key}", role=None).status_code == 200
    daemon.wait_for_state(job_id, "up")
    path = f"/heartbeat/{key}?status=down&message=disk%20full"
    assert daemon.request("GET", path, role=None).status_code == 200
    entry = daemon.wait_for_state(job_id, "down")
    renewed = daemon.request("POST", f"/job/{job_id}/key").json()
    assert daemon.request("GET", f"/heartbeat/{key}", role=None).status_code == 404
    assert daemon.request("GET", renewed["path"], role=None).status_code == 200
    daemon.wait_for_state(job_id, "up")
    assert daemon.request("GET", "/heartbeat/x?status=odd", role=None).status_code == 422
    # Guesses are few, and hold up nobody who has a key.
    guesses = [
        daemon.request("GET", f"/heartbeat/{number}", role=None).status_code for number in range(25)
    ]
    assert set(guesses[:15]) == {404}
    assert guesses[-1] == 429
    assert daemon.request("GET", renewed["path"], role=None).status_code == 200
    # Nor one whose key is new.
    renewed = daemon.request("POST", f"/job/{job_id}/key").json()
    assert daemon.request("GET", renewed["path"], role=None).status_code == 200
    other = daemon.request("POST", "/job", json=body).json()
    assert daemon.request("GET", f"/heartbeat/{other['key']}", role=None).status_code == 200
    daemon.request("DELETE", f"/job/{job_id}")
    assert daemon.request("GET", renewed["path"], role=None).status_code == 404


def test_a_heartbeat_has_no_url() -> None:
    assert read_job({"id": 1, "kind": "heartbeat"}).shown_url == ""
    with pytest.raises(SettingError, match="a heartbeat has none"):
        read_job({"id": 1, "kind": "heartbeat", "url": "http://x/"})
    with pytest.raises(SettingError, match="grace"):
        read_job({"id": 1, "kind": "heartbeat", "grace": -1})


class Watched:
    """A job's check, and a clock that stands still until it is moved."""

    def __init__(self, **keys: float) -> None:
        self.now_s = 1000.0
        self.checks = Checks(resolver_threads=1)
        self.checks.beats = self.beats = Beats(lambda: self.now_s)
        self._attempt = self.checks.prepare(read_job({"id": 1, "kind": "heartbeat", **keys}))

    async def look(self) -> Outcome | None:
        try:
            return await self._attempt()
        except NoBeatYetError:
            return None

    def beat(self, at: float, *, up: bool = True) -> None:
        assert self.beats.take(1, Beat(at, up), self.now_s)


@pytest.fixture
async def daily() -> AsyncIterator[Watched]:
    watched = Watched(interval=86400, grace=60)
    yield watched
    await watched.checks.close()


@pytest.mark.parametrize("step_s", [-90000.0, 90000.0])
async def test_a_clock_that_is_set_makes_no_beat_late_and_hides_none(
    daily: Watched, step_s: float
) -> None:
    at = time.time()
    daily.beat(at)
    assert (await daily.look()) == Outcome(up=True, matched=True)
    daily.now_s += 10
    # A beat after the clock was set, back or ahead by more than a day.
    daily.beat(at + step_s, up=False)
    found = await daily.look()
    assert found is not None
    assert found.error == "reported: down"
    daily.beat(at + step_s)
    daily.now_s += 86459
    assert (await daily.look()) == Outcome(up=True, matched=True)
    daily.now_s += 2
    found = await daily.look()
    assert found is not None
    assert found.error == "late: 86461 s after the last one"


async def test_a_beat_that_came_before_the_start_counts_by_its_age(daily: Watched) -> None:
    daily.beats.restore(1, Beat(50_000.0), now=60_000.0)
    daily.now_s += 76459
    assert (await daily.look()) == Outcome(up=True, matched=True)
    daily.now_s += 2
    found = await daily.look()
    assert found is not None
    assert found.error == "late: 86461 s after the last one"
    # Where the clock was ahead before the start, it is as if it came with the start.
    daily.beats.restore(1, Beat(90_000.0), now=60_000.0)
    assert (await daily.look()) == Outcome(up=True, matched=True)
    daily.now_s += 10_000
    found = await daily.look()
    assert found is not None
    assert found.error == "late: 86461 s after the last one"


@pytest.mark.parametrize(("interval", "wait_s"), [(60.0, 60.0), (86400.0, 300.0)])
async def test_nothing_is_late_right_after_a_start_as_beats_may_have_come_before_it(
    interval: float, wait_s: float
) -> None:
    watched = Watched(interval=interval)
    try:
        watched.beats.restore(1, Beat(0.0), now=10 * interval)
        assert await watched.look() is None
        watched.now_s += wait_s - 1
        assert await watched.look() is None
        watched.now_s += 2
        found = await watched.look()
        assert found is not None
        assert found.error is not None
        assert found.error.startswith("late: ")
    finally:
        await watched.checks.close()


@pytest.mark.integration_test
def test_a_beat_counts_while_the_database_is_away(start_daemon: StartDaemon) -> None:
    with own_server() as server:
        url = server.url(server.create_database())
        asyncio.run(make_tables(url))
        config = {
            "relay": False,
            "database": {"url": url, "connect_timeout": 1},
            "probes": {"jobs": [{"id": 1, "kind": "heartbeat", "interval": 3600}]},
            "api": {"uri": ["127.0.0.1", free_port()], "tokens_file": None},
        }
        daemon = start_daemon(config, debug=False)
        daemon.wait_ready()
        whole = Whole(daemon, config, Path())
        path = whole.request("POST", "/job/1/key").json()["path"]
        former, path = path, whole.request("POST", "/job/1/key").json()["path"]
        assert whole.request("GET", path).status_code == 200
        whole.wait_for_state(1, "up")
        server.stop()
        assert whole.request("GET", f"{path}?status=down").status_code == 200
        whole.wait_for_state(1, "down")
        assert whole.request("GET", "/heartbeat/unknown").status_code == 503
        assert whole.request("GET", former).status_code == 503


async def make_tables(url: str) -> None:
    async with opened(DatabaseSettings(url=url)):
        pass
