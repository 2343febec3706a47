"""A daemon of the API alone, on a PostgreSQL that daemons with the parts write to."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from websockets.sync.client import connect

from monitor.probes.checks.http import HttpJob
from monitor.probes.jobs_table import save_jobs
from monitor.store import DatabaseSettings
from tests.ports import free_port
from tests.probes.misbehaving import Misbehaving
from tests.servers.daemon import DaemonProcess
from tests.servers.postgres import PostgresServer
from tests.store.opened import opened
from tests.waiting import LIMIT_S, wait_for
from tests.web.whole import Whole

pytestmark = pytest.mark.integration_test

SITES = 6
WINDOW_S = 600


class Fleet:
    """Two producers, one consumer with the logs, and the API alone, all on one database."""

    def __init__(self, url: str, folder: Path, site: Misbehaving, stack: ExitStack) -> None:
        self.site = site
        self._stack = stack
        self.database = {"database": {"url": url}, "relay": False}
        self._folder = folder
        bus = {"bus": {"file": str(folder / "spool.db")}}
        probes = {"source": "database", "websites_per_container": SITES // 2}
        self.producers = [
            self._start(f"producer-{number}", {**bus, "probes": probes}, "start-producer", number)
            for number in (1, 2)
        ]
        aggregation = {"aggregation": {"flush_interval": 0.2}}
        logs = {"logs": {"timewindow": WINDOW_S}}
        self.writer = self._serving("writer", {**bus, **aggregation, **logs})
        self.web = self._serving("web", {}, LOGS_TIMEWINDOW=str(WINDOW_S))

    def _start(
        self, name: str, sections: dict[str, Any], *arguments: Any, **environ: str
    ) -> DaemonProcess:
        folder = self._folder / name
        folder.mkdir()
        if arguments:
            command, number = arguments
            arguments = (command, str(folder / "config.yml"), str(number))
        daemon = DaemonProcess(
            folder,
            {**self.database, **sections},
            arguments=arguments,
            environ=environ,
            debug=False,
        )
        self._stack.callback(daemon.release)
        return daemon.wait_ready()

    def _serving(self, name: str, sections: dict[str, Any], **environ: str) -> Whole:
        api = {"uri": ["127.0.0.1", free_port()], "tokens_file": None}
        config = {**self.database, **sections, "api": api}
        return Whole(self._start(name, config, **environ), config, self._folder / name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(
    postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Fleet]:
    url = postgres_server.url(postgres_server.create_database())
    site = Misbehaving()
    jobs = [HttpJob(id=i, url=site.url("/ok"), interval=0.5) for i in range(1, SITES + 1)]
    async with opened(DatabaseSettings(url=url)) as store:
        await store.transaction(lambda connection: save_jobs(connection, jobs))
    with ExitStack() as stack:
        stack.callback(site.close)
        running = Fleet(url, tmp_path_factory.mktemp("fleet"), site, stack)
        yield running
        for daemon in (running.web.daemon, running.writer.daemon, *running.producers):
            assert daemon.stop() == 0
            assert "[ERROR]" not in daemon.log, daemon.log


def seen(fleet: Fleet) -> dict[int, float]:
    """Return when each job was checked last, by the API."""
    return {
        job["id"]: job["last"]["checked_at"]
        for job in fleet.web.get("/job")["items"]
        if job["last"] is not None
    }


def test_jobs_of_all_producers_are_there_with_state_results_and_the_next_run(fleet: Fleet) -> None:
    wait_for(lambda: len(seen(fleet)) == SITES, "a result of each job")
    entry = fleet.web.wait_for_state(1, "up")
    assert entry["last"]["status"] == 200
    assert entry["next_run"] > entry["last"]["scheduled_at"]
    assert {fleet.web.get(f"/job/{i}")["last"]["producer"] for i in range(1, SITES + 1)} == {1, 2}
    first = seen(fleet)
    wait_for(lambda: all(at > first[i] for i, at in seen(fleet).items()), "newer results")
    assert fleet.web.get("/job/6/result")["items"]
    assert fleet.web.get("/job/6/metric")["items"][0]["checks"] > 0
    wait_for(lambda: fleet.web.get("/job/1")["since"] is not None, "since when it is up")


def test_a_stop_reaches_its_producer_and_moves_no_other_job(fleet: Fleet) -> None:
    wait_for(lambda: len(seen(fleet)) == SITES, "a result of each job")
    producers = {i: fleet.web.get(f"/job/{i}")["last"]["producer"] for i in range(1, SITES + 1)}
    assert fleet.web.request("POST", "/job/1/stop").status_code == 200
    assert fleet.web.request("POST", "/job/1/stop").status_code == 409
    entry = fleet.web.get("/job/1")
    assert (entry["state"], entry["active"]) == ("stopped", True)
    fleet.producers[0].wait_log("checking 2 of 6 jobs")
    results = fleet.web.get("/job/1/result")["items"]
    before = seen(fleet)
    wait_for(
        lambda: all(at > before[i] + 1 for i, at in seen(fleet).items() if i != 1),
        "results of all others",
    )
    # None came of the stopped one, but what was under way; and all others stayed where they were.
    assert len(fleet.web.get("/job/1/result")["items"]) <= len(results) + 2
    now = {i: fleet.web.get(f"/job/{i}")["last"]["producer"] for i in range(1, SITES + 1)}
    assert now == producers
    assert "checking 3 of 6 jobs" in fleet.producers[1].log
    assert "checking 2 of 6 jobs" not in fleet.producers[1].log
    assert fleet.web.request("POST", "/job/1/start").status_code == 200
    assert fleet.web.request("POST", "/job/1/start").status_code == 409
    wait_for(lambda: seen(fleet)[1] > before[2] + 1, "results again")


def test_a_site_is_created_changed_and_deleted_for_the_producers(fleet: Fleet) -> None:
    job = {"url": fleet.site.url("/status/500"), "interval": 0.5}
    made = fleet.web.request("POST", "/job", json={"id": 3, **job})
    assert made.status_code == 409
    assert fleet.web.request("PUT", "/job/3", json=job).status_code == 200
    wait_for(lambda: fleet.web.get("/job/3")["state"] == "down", "a job that is down")
    turned = fleet.web.get("/job/3")["since"]
    assert turned is not None
    good = {"url": fleet.site.url("/ok"), "interval": 0.5}
    assert fleet.web.request("PUT", "/job/3", json=good).status_code == 200
    wait_for(lambda: fleet.web.get("/job/3")["state"] == "up", "a job that is up again")
    entry = fleet.web.get("/job/3")
    results = fleet.web.get("/job/3/result")["items"]
    ups = [result["scheduled_at"] for result in results if result["up"]]
    # The very first result of the new URL, not the newest when somebody looked.
    assert entry["since"] in ups
    assert all(result["url"] == good["url"] for result in results if result["up"])
    assert fleet.web.request("POST", "/job", json={"id": 99, **good}).status_code == 201
    assert fleet.web.request("DELETE", "/job/99").status_code == 204
    assert fleet.web.request("GET", "/job/99").status_code == 404


def test_pages_see_results_of_other_daemons(fleet: Fleet) -> None:
    with connect(f"{fleet.web.url.replace('http', 'ws')}/live") as page:
        messages: list[dict[str, Any]] = []

        def until(kind: str, count: int = 1) -> list[dict[str, Any]]:
            while sum(message["type"] == kind for message in messages) < count:
                messages.append(json.loads(page.recv(timeout=LIMIT_S)))
            return [message for message in messages if message["type"] == kind]

        (hello,) = until("hello")
        assert {"jobs", "history", "models", "logs"} <= set(hello["has"])
        begin, piece = until("jobs", 2)[:2]
        assert (begin["left"], len(piece["items"]), piece["left"]) == (SITES, SITES, 0)
        count = 3
        while not until("jobs", count)[-1]["items"]:
            count += 1
        assert "models" in until("status")[0]


def test_logs_that_others_take_are_found_and_followed_but_not_taken(fleet: Fleet) -> None:
    web, writer = (
        connect(f"{each.url.replace('http', 'ws')}/ws") for each in (fleet.web, fleet.writer)
    )
    with web as reading, writer as writing:

        def ask(client: Any, **message: Any) -> Any:
            client.send(json.dumps(message))
            return json.loads(client.recv(timeout=LIMIT_S))

        upload = {"action": "uploadLogs", "level": "info", "sender": "one", "message": "hello"}
        now = time.time()
        refused = ask(reading, **upload, time=now)
        assert refused["error"]["code"] == "forbidden"
        assert ask(reading, action="followLogs")["status"] == "ok"
        assert ask(writing, **upload, time=now)["accepted"] == 1
        (live,) = json.loads(reading.recv(timeout=LIMIT_S))["logs"]
        assert live["message"] == "hello"
        assert ask(writing, **{**upload, "message": "old"}, time=now - 300)["accepted"] == 1
        listed = fleet.web.get("/log?sender=one")["logs"]
        assert [entry["message"] for entry in listed] == ["hello", "old"]
        assert fleet.web.get("/notification")["notifications"] == []
