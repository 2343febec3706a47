"""``rejected`` and the calls behind it, against a daemon that runs."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator

import pytest

from monitor.store.cursor import cursor_of
from tests.aggregation.plain import result
from tests.commands.test_job import command
from tests.web.whole import Whole, whole

pytestmark = pytest.mark.integration_test


@pytest.fixture(scope="module")
def daemon() -> Iterator[Whole]:
    fields = [{"field": "phases.processing", "functions": ["avg", "p95"]}]
    with whole(tokens=True, aggregation={"flush_interval": 0.2, "fields": fields}) as running:
        yield running


def reject(daemon: Whole, *payloads: bytes) -> None:
    """Put messages into the table, as if the daemon had not understood them."""
    file = daemon.daemon.directory / "monitor.db"
    with contextlib.closing(sqlite3.connect(file, timeout=60)) as connection, connection:
        connection.executemany(
            "INSERT INTO rejected_message VALUES ('t', 0, ?, ?, 'not-a-result: then', ?, '{}')",
            [(offset, time.time(), payload) for offset, payload in enumerate(payloads)],
        )


def test_messages_are_listed_tried_again_and_counted_once(daemon: Whole) -> None:
    at = time.time() // 60 * 60 - 60
    values = [json.dumps(result(77, at + second)).encode() for second in range(3)]
    reject(daemon, *values, b"poison \x1b[31m")
    admin, reader = daemon.tokens["admin"], daemon.tokens["reader"]

    status, out, _ = command(daemon, "rejected", "list", token=admin)
    lines = out.splitlines()
    assert (status, len(lines)) == (0, 5)
    assert "\x1b" not in out
    assert lines[0].split("\t")[:4] == ["OFFSET", "REASON", "PARTITION", "TOPIC"]
    assert lines[1].split("\t")[:4] == ["3", "not-a-result: then", "0", "t"]
    _, out, _ = command(daemon, "rejected", "list", "--json", "--offset", "1", token=admin)
    assert json.loads(out)["payload"] == values[1].decode()

    status, _, err = command(daemon, "rejected", "replay", token=reader)
    assert status == 1
    assert len(err.splitlines()) == 1
    answer = daemon.request("POST", "/rejected/replay?offset=0")
    assert answer.json() == {"counted": 1, "duplicates": 0, "rejected": 0, "cursor": None}
    answer = daemon.request("POST", f"/rejected/replay?cursor={cursor_of('t', 0, 2)}")
    assert answer.json() == {"counted": 0, "duplicates": 0, "rejected": 1, "cursor": None}
    assert daemon.request("POST", "/rejected/replay?cursor=x").status_code == 422
    status, out, _ = command(daemon, "rejected", "replay", token=admin)
    assert (status, out) == (1, "2 counted, 0 counted before, 1 rejected again\n")
    assert daemon.get("/rejected")["items"][0]["reason"].startswith("not-a-result: ")

    (window,) = daemon.get("/job/77/metric", params={"since": at, "granularity": "minute"})["items"]
    assert window["checks"] == 3
    assert window["fields"] == {"phases.processing": {"avg": pytest.approx(0.1), "p95": 0.1}}
