"""Heartbeats: in time, late, reported as failed, and back, even after a restart."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from monitor.errors import SettingError
from monitor.probes.checks import read_job
from tests.web.whole import Whole, whole


@pytest.fixture(scope="module")
def daemon() -> Iterator[Whole]:
    with whole(tokens=True) as running:
        yield running


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
    daemon.request("DELETE", f"/job/{job_id}")
    assert daemon.request("GET", renewed["path"], role=None).status_code == 404


def test_a_heartbeat_has_no_url() -> None:
    assert read_job({"id": 1, "kind": "heartbeat"}).shown_url == ""
    with pytest.raises(SettingError, match="a heartbeat has none"):
        read_job({"id": 1, "kind": "heartbeat", "url": "http://x/"})
    with pytest.raises(SettingError, match="grace"):
        read_job({"id": 1, "kind": "heartbeat", "grace": -1})
