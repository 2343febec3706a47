"""What must be as before after a restart, and readiness while the daemon comes and goes."""

from __future__ import annotations

import contextlib
import sqlite3
import time

import pytest
import requests

from tests.ports import free_port
from tests.servers.daemon import DaemonProcess, StartDaemon
from tests.waiting import LIMIT_S, wait_for
from tests.web.whole import Whole

pytestmark = pytest.mark.integration_test


@pytest.mark.parametrize("source", ["config", "database"])
def test_a_stopped_job_stays_stopped_and_is_not_checked_once(
    start_daemon: StartDaemon, source: str
) -> None:
    port = free_port()
    job = {"id": 1, "name": "one", "url": f"http://127.0.0.1:{port}/healthz", "interval": 0.2}
    probes = {"source": "config", "jobs": [job]} if source == "config" else {"source": "database"}
    config = {
        "relay": False,
        "probes": probes,
        "aggregation": {"flush_interval": 0.2},
        "api": {"uri": ["127.0.0.1", port], "tokens_file": None},
    }

    def start() -> tuple[Whole, DaemonProcess]:
        daemon = start_daemon(config).wait_ready()
        return Whole(daemon, config, daemon.directory), daemon

    first, process = start()
    if source == "database":
        assert first.request("POST", "/job", json=job).status_code == 201
    first.wait_for_state(1, "up")
    assert first.request("POST", "/job/1/stop").status_code == 200
    last = first.get("/job/1")["last"]["scheduled_at"]
    stopped_at = first.get("/job/1")["since"]
    assert process.stop() == 0

    second, process = start()
    wait_for(lambda: second.get("/job/1")["last"], "the last result from the database")
    entry = second.get("/job/1")
    assert entry["state"] == "stopped"
    assert entry["since"] == stopped_at
    assert entry["last"]["scheduled_at"] == last
    assert second.request("POST", "/job/1/start").status_code == 200
    assert second.wait_for_state(1, "up")["last"]["scheduled_at"] >= last
    assert process.stop() == 0


def test_a_pause_lasts_over_a_restart_and_ends_without_a_call(start_daemon: StartDaemon) -> None:
    port = free_port()
    job = {"id": 1, "name": "one", "url": f"http://127.0.0.1:{port}/healthz", "interval": 0.2}
    config = {
        "relay": False,
        "probes": {"source": "config", "jobs": [job]},
        "api": {"uri": ["127.0.0.1", port], "tokens_file": None},
    }
    process = start_daemon(config).wait_ready()
    first = Whole(process, config, process.directory)
    first.wait_for_state(1, "up")
    path = f"/job/1/stop?until={time.time() + 3600}"
    assert first.request("POST", path).status_code == 200
    assert process.stop() == 0
    # Another program could have written it: what counts is the time.
    with contextlib.closing(sqlite3.connect(process.directory / "monitor.db")) as file:
        file.execute("UPDATE job_state SET stopped_until = ?", (time.time() + 2,))
        file.commit()
    process = start_daemon(config).wait_ready()
    second = Whole(process, config, process.directory)
    assert second.wait_for_state(1, "up")["stopped_until"] is None
    assert process.stop() == 0


def test_results_that_are_written_only_after_a_restart_show_at_a_stopped_job(
    start_daemon: StartDaemon,
) -> None:
    port = free_port()
    job = {"id": 1, "name": "one", "url": f"http://127.0.0.1:{port}/healthz", "interval": 0.2}
    config = {
        "relay": False,
        "probes": {"source": "config", "jobs": [job]},
        "api": {"uri": ["127.0.0.1", port], "tokens_file": None},
    }
    # Nobody writes them yet: they are in the spool.
    daemon = start_daemon(config).wait_ready()
    first = Whole(daemon, config, daemon.directory)
    first.wait_for_state(1, "up")
    assert first.request("POST", "/job/1/stop").status_code == 200
    last = first.get("/job/1")["last"]["scheduled_at"]
    assert daemon.stop() == 0

    # The database has nothing when it is asked first.
    config["aggregation"] = {"flush_interval": 2}
    daemon = start_daemon(config).wait_ready()
    second = Whole(daemon, config, daemon.directory)
    found = wait_for(lambda: second.get("/job/1")["last"], "the last result from the database")
    assert found["scheduled_at"] == last
    assert daemon.stop() == 0


def test_since_when_a_site_is_down_is_known_after_a_restart(start_daemon: StartDaemon) -> None:
    port = free_port()
    job = {"id": 1, "url": "http://127.0.0.1:9/", "interval": 0.3, "timeout": 1}
    config = {
        "relay": False,
        "probes": {"jobs": [job]},
        "aggregation": {"flush_interval": 0.2},
        "api": {"uri": ["127.0.0.1", port], "tokens_file": None},
    }
    daemon = start_daemon(config).wait_ready()
    first = Whole(daemon, config, daemon.directory)
    since = first.wait_for_state(1, "down")["since"]
    wait_for(lambda: first.get("/job/1/result")["items"], "a result in the database")
    assert daemon.stop() == 0
    daemon = start_daemon(config).wait_ready()
    second = Whole(daemon, config, daemon.directory)
    wait_for(lambda: second.get("/job/1")["since"] == since, "since when it was down before")
    assert daemon.stop() == 0


def test_ready_says_why_it_is_not(postgres_url: str, start_daemon: StartDaemon) -> None:
    port = free_port()
    config = {
        "relay": False,
        "logs": {},
        "database": {"url": postgres_url},
        "api": {"uri": ["127.0.0.1", port], "tokens_file": None},
    }
    start_daemon(config).wait_ready()
    url = f"http://127.0.0.1:{port}"
    # The tables are not there: the daemon lives, but is not ready for work.
    answer = requests.get(f"{url}/readyz", timeout=LIMIT_S)
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert "configure-database" in answer.json()["reasons"][0]
    assert requests.get(f"{url}/healthz", timeout=LIMIT_S).status_code == 200
    assert requests.post(f"{url}/db/init?confirm=drop", timeout=LIMIT_S).status_code == 200
    wait_for(lambda: requests.get(f"{url}/readyz", timeout=LIMIT_S).ok, "readiness")
