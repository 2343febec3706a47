"""Restarts with a history file: in order, by kill -9, with a damaged file, on a full disk."""

from __future__ import annotations

import resource
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from monitor.relay.history_file import HistoryFile
from tests.relay.broker import Broker
from tests.relay.conftest import Relay, StartRelay, everything
from tests.relay.recovering import RecoveringClient, commands
from tests.servers.daemon import DaemonProcess, StartDaemon
from tests.waiting import wait_for

pytestmark = pytest.mark.integration_test

FILE = "history.db"


def restart(relay: Relay, start_daemon: StartDaemon, how: signal.Signals) -> DaemonProcess:
    """End the relay's daemon, start another with the same config, and its broker."""
    for broker in relay.brokers:
        broker.close()
    relay.daemon.process.send_signal(how)
    relay.daemon.wait()
    relay.daemon = start_daemon(relay.config).wait_ready()
    relay.brokers = [Broker(f"tcp://127.0.0.1:{relay.zeromq_port}")]
    return relay.daemon


def wait_saved(relay: Relay, text: str) -> None:
    """Wait until ``text`` is on disk, and nothing more is being written."""
    wal = relay.daemon.directory / f"{FILE}-wal"
    size = -1

    def at_rest() -> bool:
        nonlocal size
        before, size = size, wal.stat().st_size
        return text.encode() in wal.read_bytes() and size == before

    wait_for(at_rest, f"{text} on disk")


def test_histories_and_epochs_survive_a_restart(
    start_relay: StartRelay, start_daemon: StartDaemon
) -> None:
    relay = start_relay(history_file=FILE)
    for number in range(50):
        relay.broker.task("open", number)
        relay.broker.task("done", number)
    relay.broker.send("done", "FINISHED")
    relay.wait_received(101)
    client = RecoveringClient(relay)
    epochs = {name: client.subscribe(name, None)["epoch"] for name in ("none",)}
    client = RecoveringClient(relay)
    epochs["open"] = client.subscribe("open")["epoch"]
    assert [client.receive()["seq"] for _ in range(50)] == list(range(1, 51))
    daemon = restart(relay, start_daemon, signal.SIGTERM)
    daemon.wait_log("histories restored: 2,")
    again = RecoveringClient(relay)
    while not again.feed["brokers"]:
        again.feed = again.receive()
    answer = again.subscribe("open", (epochs["open"], 50))
    assert (answer["epoch"], answer["recovered"]) == (epochs["open"], True)
    # What the broker sent meanwhile is lost, and said for what had not finished.
    gap = again.receive()
    assert (gap["type"], gap["state"], gap["channel"], gap["seq"]) == ("feed", "gap", "open", 50)
    relay.broker.task("open", 50)
    assert again.receive()["seq"] == 51
    relay.broker.send("open", "FINISHED")
    assert commands(again.until_end()) == ["FINISHED"]
    again.subscribe("done")
    got = again.until_end()
    assert commands(got) == [*(f"t{n}" for n in range(50)), "FINISHED"]
    assert {message["type"] for message in got} == {"message", "finished"}
    # So they do for those who speak the old protocol.
    texts, code = everything(relay.client("done"))
    assert (len(texts), code) == (51, 1000)


def test_kill_loses_nothing_that_was_saved_and_tells_who_knows_more(
    start_relay: StartRelay, start_daemon: StartDaemon
) -> None:
    relay = start_relay(history_file=FILE)
    for number in range(50):
        relay.broker.task("job", number)
    client = RecoveringClient(relay)
    epoch = client.subscribe("job")["epoch"]
    assert [client.receive()["seq"] for _ in range(50)] == list(range(1, 51))
    wait_saved(relay, '"t49"')
    restart(relay, start_daemon, signal.SIGKILL).wait_log("was not stopped cleanly")
    relay.broker.task("job", 50)
    relay.wait_received(1)
    again = RecoveringClient(relay)
    answer = again.subscribe("job", (epoch, 50))
    assert answer["recovered"] is True
    assert answer["epoch"] != epoch
    assert again.receive()["state"] == "gap"
    assert again.receive()["data"]["task_id"] == "t50"
    # Number 51 of the old epoch is not number 51 of the new one.
    answer = again.subscribe("job", (epoch, 51))
    assert (answer["recovered"], answer["seq"]) == (False, 0)


def test_a_damaged_file_is_set_aside_and_said(
    start_relay: StartRelay, start_daemon: StartDaemon
) -> None:
    relay = start_relay(history_file=FILE)
    for number in range(1000):
        relay.broker.task("job", number)
    relay.wait_received(1000)
    file = relay.daemon.directory / FILE
    relay.daemon.stop()
    data = bytearray(file.read_bytes())
    data[-2000:-1000] = b"\xff" * 1000
    file.write_bytes(data)
    daemon = restart(relay, start_daemon, signal.SIGTERM)
    line = daemon.wait_log("is damaged")
    assert "[ERROR]" in line
    assert (daemon.directory / f"{FILE}.corrupt").read_bytes() == data
    relay.broker.send("job", "FINISHED")
    assert everything(relay.client("job")) == (['{"command": "FINISHED"}'], 1000)


@pytest.mark.parametrize("what", ["directory", "foreign", "text"])
def test_a_file_that_cannot_be_used_is_bad_config(
    start_daemon: StartDaemon, tmp_path: Path, what: str
) -> None:
    config: dict[str, Any] = {"zeromq_uri": ["127.0.0.1", 0], "websocket_uri": ["127.0.0.1", 0]}
    if what == "directory":
        file = tmp_path / "missing" / "history.db"
    elif what == "foreign":
        file = tmp_path / "foreign.db"
        database = sqlite3.connect(file)
        database.execute("CREATE TABLE precious (data TEXT)")
        database.close()
    else:
        file = tmp_path / "notes.txt"
        file.write_text("precious")
    (tmp_path / "second").mkdir()
    daemon = start_daemon(
        {**config, "relay": {"history_file": str(file)}}, directory=tmp_path / "second"
    )
    assert daemon.wait() == 78
    assert "relay.history_file: " in daemon.stderr
    assert len(daemon.stderr.strip().splitlines()) <= 3
    if what == "text":
        assert [path.name for path in tmp_path.glob("notes*")] == ["notes.txt"]
        assert file.read_text() == "precious"


@pytest.mark.parametrize("for_how_long", ["a moment", "good"])
def test_a_file_that_another_process_has_locked_is_not_bad_config(
    start_daemon: StartDaemon, tmp_path: Path, for_how_long: str
) -> None:
    file = tmp_path / "history.db"
    HistoryFile(file).close(None)
    config = {
        "zeromq_uri": ["127.0.0.1", 0],
        "websocket_uri": ["127.0.0.1", 0],
        "relay": {"history_file": str(file)},
    }
    with closing(sqlite3.connect(file)) as other:
        other.execute("BEGIN IMMEDIATE")
        daemon = start_daemon(config)
        if for_how_long == "good":
            assert daemon.wait() == 1
            assert "database is locked" in daemon.stderr
        else:
            daemon.wait_log("starts with")
            other.execute("ROLLBACK")
    if for_how_long == "a moment":
        daemon.wait_log("ready")


def test_a_full_disk_is_said_and_costs_nobody_anything(start_relay: StartRelay) -> None:
    relay = start_relay(history_file=FILE)
    # A file may grow no more: what a full disk does, for this process alone.
    resource.prlimit(relay.daemon.pid, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    client = relay.client("job")
    for number in range(2000):
        relay.broker.task("job", number)
    relay.daemon.wait_log("cannot write")
    wait_for(lambda: "relay degraded" in relay.daemon.notices("STATUS")[-1], "degraded in STATUS=")
    relay.broker.send("job", "FINISHED")
    texts, code = everything(client)
    assert (len(texts), code) == (2001, 1000)
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(relay.daemon.pid, resource.RLIMIT_FSIZE, unlimited)
    relay.daemon.wait_log(f"{FILE} again")
