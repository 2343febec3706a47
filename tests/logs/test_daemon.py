"""The log service in the daemon, as users run it: killed, reloaded, twice on one database."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import requests
import zmq
from websockets.exceptions import ConnectionClosed, WebSocketException

from monitor.store import DatabaseSettings
from monitor.tokens import Role, create_token
from tests.chaos.clock import Clock, build_clock
from tests.logs.daemons import LIMIT_S, ask, client, config, configured, entry, program
from tests.ports import free_port
from tests.servers.daemon import ROOT, StartDaemon
from tests.waiting import wait_for

pytestmark = pytest.mark.end_to_end


def test_what_was_answered_ok_survives_kill_9(
    database: DatabaseSettings, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    port = free_port()
    settings = config(port, database)
    configured(settings, tmp_path)
    answered: set[str] = set()
    repeatable: dict[str, Any] = {"upload_id": "last", "logs": [entry("repeated")]}

    def upload_until_it_dies(number: int) -> None:
        with contextlib.suppress(WebSocketException, OSError), client(port) as connection:
            for count in range(100_000):
                texts = [f"{number}.{count}.{each}" for each in range(5)]
                answer = ask(connection, "uploadLogs", logs=[entry(text) for text in texts])
                assert answer["accepted"] == 5
                answered.update(texts)

    daemon = start_daemon(settings, debug=False).wait_ready()
    with client(port) as connection:
        first = ask(connection, "uploadLogs", **repeatable)
    threads = [threading.Thread(target=upload_until_it_dies, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(answered) > 500, "enough is stored")
    daemon.process.kill()
    daemon.wait()
    for thread in threads:
        thread.join(LIMIT_S)
    again = start_daemon(settings, debug=False).wait_ready()
    with client(port) as connection:
        stored: set[str] = set()
        cursor = None
        while True:
            page = ask(connection, "getLogs", limit=10_000, cursor=cursor)
            stored.update(each["message"] for each in page["logs"])
            cursor = page["cursor"]
            if cursor is None:
                break
        assert answered <= stored
        assert ask(connection, "uploadLogs", **repeatable) == first
        found = ask(connection, "getLogs", contains="repeated")
        assert len(found["logs"]) == 1
    assert again.stop() == 0


@pytest.mark.integration_test
def test_two_daemons_on_one_database(
    postgres_url: str, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    database = DatabaseSettings(url=postgres_url)
    ports = [free_port(), free_port()]
    configured(config(ports[0], database), tmp_path)
    for number, port in enumerate(ports):
        settings = config(port, database, logs={"timewindow": 600, "cleanup_interval": 0.2})
        start_daemon(settings, directory=tmp_path / str(number), debug=False).wait_ready()
    with client(ports[0]) as one, client(ports[1]) as two, client(ports[1]) as follower:
        assert ask(follower, "followLogs")["status"] == "ok"

        def followed() -> bool:
            ask(one, "uploadLogs", **entry("are you there"))
            with contextlib.suppress(TimeoutError):
                return bool(json.loads(follower.recv(timeout=0.5)))
            return False

        wait_for(followed, "the other's listener has begun")
        for number in range(50):
            upload = {"upload_id": str(number), "logs": [entry(str(number), sender="both")]}
            assert ask(one, "uploadLogs", **upload)["accepted"] == 1
            assert ask(two, "uploadLogs", **upload)["accepted"] == 1
        for connection in (one, two):
            assert len(ask(connection, "getLogs", sender="both")["logs"]) == 50
        seen: list[str] = []
        while len(seen) < 50:
            message = json.loads(follower.recv(timeout=LIMIT_S))
            seen += [each["message"] for each in message["logs"] if each["sender"] == "both"]
        assert sorted(seen, key=int) == [str(number) for number in range(50)]


def test_tokens_roles_and_reload_as_an_operator_uses_them(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    port = free_port()
    tokens_file = tmp_path / "tokens.yml"
    settings = config(port, api={"uri": ["0.0.0.0", port], "tokens_file": str(tokens_file)})
    refused = start_daemon(settings)
    assert refused.wait() == 78
    line = refused.stderr.strip().splitlines()[-1]
    assert re.search(r"config\.yml:\d+: api\.uri: .* is open to other hosts, but", line)

    tokens = {}
    for name, role in (("ops", "admin"), ("addon-1", "sender")):
        made = program("token", "create", name, "--role", role, file=refused.config_file)
        assert made.returncode == 0, made.stderr
        tokens[role] = made.stdout.splitlines()[-1]
    again = program("token", "create", "ops", "--role", "admin", file=refused.config_file)
    assert again.returncode == 2
    assert "already" in again.stderr

    daemon = start_daemon(settings, debug=False).wait_ready()
    with client(port, tokens["sender"]) as device:
        device.send(json.dumps({"action": "uploadLogs", **entry("mine")}))
        assert json.loads(device.recv(timeout=LIMIT_S))["accepted"] == 1
        environ = {"RECODEX_MONITOR_TOKEN": tokens["admin"]}
        shown = program("logs", file=daemon.config_file, environ=environ)
        assert (shown.returncode, shown.stdout.strip()[-13:]) == (0, "addon-1: mine")
        unauthorized = program("logs", file=daemon.config_file)
        assert unauthorized.returncode == 1
        assert unauthorized.stderr.count("\n") == 1
        assert "RECODEX_MONITOR_TOKEN" in unauthorized.stderr

        # A token that is gone at a reload ends with it; a file that is wrong changes nothing.
        good = tokens_file.read_text()
        tokens_file.write_text("tokens: nonsense")
        daemon.reload()
        refusal = daemon.wait_log("reload failed")
        assert re.search(rf"config\.yml:\d+: api\.tokens_file: {tokens_file}: ", refusal)
        assert ask(device, "uploadLogs", **entry("still"))["accepted"] == 1
        tokens_file.write_text(good[: good.index("- name: addon-1")])
        daemon.reload()
        with pytest.raises(ConnectionClosed):
            device.recv(timeout=LIMIT_S)
        assert device.close_code == 1008
    for secret in tokens.values():
        assert secret not in daemon.log
    assert daemon.stop() == 0


def test_tokens_that_move_guard_zeromq_from_the_reload_on(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.yml", tmp_path / "second.yml"
    port, zeromq_port = free_port(), free_port()

    def settings(file: Path) -> dict[str, Any]:
        return config(
            port,
            logs={"zeromq_uri": ["0.0.0.0", zeromq_port]},
            api={"uri": ["127.0.0.1", port], "tokens_file": str(file)},
        )

    old = create_token(first, "ops", Role.ADMIN)
    daemon = start_daemon(settings(first), debug=False).wait_ready()
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.RCVTIMEO, LIMIT_S * 1000)
        dealer.connect(f"tcp://127.0.0.1:{zeromq_port}")

        def code(token: str | None) -> str:
            dealer.send(json.dumps({"action": "getLogs", "token": token or ""}).encode())
            answer = json.loads(dealer.recv())
            return str(answer["error"]["code"] if answer["status"] == "error" else "ok")

        assert (code(old), code(None)) == ("ok", "unauthorized")
        # The old file still has tokens, but it is the new one that would let anyone in.
        second.write_text("tokens: []")
        daemon.write_config(settings(second))
        daemon.reload()
        assert "logs.zeromq_uri: " in daemon.wait_log("reload failed")
        assert (code(old), code(None)) == ("ok", "unauthorized")
        first.unlink()
        new = create_token(second, "ops", Role.ADMIN)
        daemon.reload()
        assert (code(new), code(old), code(None)) == ("ok", "unauthorized", "unauthorized")
    assert daemon.stop() == 0


def test_a_reload_moves_the_window_and_the_environment_wins(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    port = free_port()
    daemon = start_daemon(config(port), debug=False).wait_ready()
    with client(port) as connection:
        old = entry("old", time=time.time() - 300)
        assert ask(connection, "uploadLogs", **old)["accepted"] == 1
        daemon.write_config(config(port, logs={"timewindow": 100}))
        daemon.reload()
        daemon.wait_log("[WARNING] timewindow is now 100 s (was 600 s)")
        assert ask(connection, "getLogs")["logs"] == []
        refused = ask(connection, "uploadLogs", **old)
        assert refused["rejected"][0]["reason"] == "too-old"
    assert daemon.stop() == 0
    environ = {"LOGS_TIMEWINDOW": "500"}
    again = start_daemon(config(port, logs={"timewindow": 100}), environ=environ).wait_ready()
    with client(port) as connection:
        assert ask(connection, "uploadLogs", **old)["accepted"] == 1
    assert again.stop() == 0
    shown = program("check-config", "-c", str(again.config_file), environ=environ)
    assert "timewindow: 500.0\n" in shown.stdout
    wrong = start_daemon(config(port), environ={"LOGS_TIMEWINDOW": "soon"})
    assert wrong.wait() == 78
    assert "LOGS_TIMEWINDOW" in wrong.stderr


def test_a_full_disk_is_said_and_uploads_go_on_when_there_is_room(
    start_daemon: StartDaemon,
) -> None:
    port = free_port()
    daemon = start_daemon(config(port), debug=False).wait_ready()
    with client(port) as connection:
        assert ask(connection, "uploadLogs", **entry("before"))["accepted"] == 1
        # No file may grow any more, as on a disk without room.
        before = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        refused = ask(connection, "uploadLogs", id=1, **entry("lost"))
        assert refused["error"]["code"] == "unavailable"
        assert refused["error"]["retry_after"] > 0
        assert [each["message"] for each in ask(connection, "getLogs")["logs"]] == ["before"]
        health = requests.get(f"http://127.0.0.1:{port}/healthz", timeout=LIMIT_S).json()
        assert health["parts"]["logs"]["health"] == "degraded"
        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, before)
        assert ask(connection, "uploadLogs", **entry("after"))["accepted"] == 1
        found = [each["message"] for each in ask(connection, "getLogs")["logs"]]
        assert found == ["after", "before"]
    assert daemon.stop() == 0


def test_a_part_that_is_off_loads_nothing_of_the_server() -> None:
    code = (
        "import monitor.daemon.lifecycle, sys;"
        " print({'fastapi', 'pydantic', 'zmq'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def test_a_clock_that_is_set_wrong_for_a_while_costs_nothing(
    start_daemon: StartDaemon, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    compiler = request.getfixturevalue("program")("cc", "gcc", package="gcc")
    clock = Clock(build_clock(compiler, tmp_path), tmp_path / "clock")
    port = free_port()
    settings = config(port, logs={"timewindow": 600, "cleanup_interval": 0.5})
    daemon = start_daemon(settings, environ=clock.environ, debug=False).wait_ready()
    with client(port) as connection:
        ask(connection, "uploadLogs", **entry("said before"))
        clock.set(86_400.0)
        daemon.wait_log("[WARNING] the clock jumped 86400 s ahead")
        assert ask(connection, "getLogs")["logs"] == []
        clock.set(0.0)
        daemon.wait_log("[WARNING] the clock jumped 86400 s back")
        assert [each["message"] for each in ask(connection, "getLogs")["logs"]] == ["said before"]
    assert daemon.stop() == 0
