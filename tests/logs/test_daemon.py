"""The log service in the daemon, as users run it: killed, reloaded, twice on one database."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import zmq
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from monitor.store import DatabaseSettings
from monitor.tokens import Role, create_token
from tests.chaos.clock import Clock, build_clock
from tests.ports import free_port
from tests.servers.daemon import ROOT, StartDaemon, run_program
from tests.waiting import wait_for

pytestmark = pytest.mark.end_to_end

LIMIT_S = 60


def config(port: int, database: DatabaseSettings | None = None, **sections: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "relay": False,
        "logs": {"timewindow": 600},
        "api": {"uri": ["127.0.0.1", port], "tokens_file": None},
        **sections,
    }
    if database is not None and database.url is not None:
        given["database"] = {"url": database.url}
    return given


def program(
    *arguments: str, file: Path | None = None, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    of_file = () if file is None else ("-c", str(file))
    return run_program(*arguments, *of_file, env={**os.environ, **(environ or {})})


def configured(daemon_config: dict[str, Any], directory: Path) -> None:
    """Make the tables, where that is not the daemon's own affair."""
    if "database" not in daemon_config:
        return
    file = directory / "configure.yml"
    file.write_text(json.dumps(daemon_config))
    done = program("configure-database", file=file)
    assert done.returncode == 0, done.stderr


def entry(message: str, **fields: Any) -> dict[str, Any]:
    return {"level": "info", "time": time.time(), "sender": "addon-1", "message": message} | fields


def ask(client: ClientConnection, action: str, **message: Any) -> Any:
    client.send(json.dumps({"action": action, **message}))
    return json.loads(client.recv(timeout=LIMIT_S))


@contextlib.contextmanager
def client(port: int, token: str | None = None) -> Iterator[ClientConnection]:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    with connect(f"ws://127.0.0.1:{port}/ws", additional_headers=headers) as connection:
        yield connection


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


def test_the_command_logs_shows_filters_and_follows(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    port = free_port()
    daemon = start_daemon(config(port), debug=False).wait_ready()
    with client(port) as connection:
        entries = [
            entry("first\nand more\u2028\tagain\x7f", time=time.time() - 3),
            entry("\x1b[31mred\x9b2J\x07", time=time.time() - 2, level="error", sender="a\n\x1b2"),
            entry("last", time=time.time() - 1),
        ]
        assert ask(connection, "uploadLogs", logs=entries)["accepted"] == 3
        api = f"http://127.0.0.1:{port}"
        shown = program("logs", "--api", api)
        assert shown.returncode == 0, shown.stderr
        lines = shown.stdout.splitlines()
        assert [line[30:] for line in lines if not line.startswith(" ")] == [
            "INFO     addon-1: first",
            r"ERROR    a\n\x1b2: \x1b[31mred\x9b2J\x07",
            "INFO     addon-1: last",
        ]
        assert lines[1:3] == ["    and more", "        again\\x7f"]
        one = program("logs", "--api", api, "--level", "40", "--json", "--timewindow", "60")
        assert [json.loads(line)["sender"] for line in one.stdout.splitlines()] == ["a\n\x1b2"]
        at = str(entries[1]["time"])
        two = program("logs", "--api", api, "--around", at, "--limit", "2", "--json")
        found = [json.loads(line)["message"] for line in two.stdout.splitlines()]
        assert found == [entries[1]["message"], "last"]
        assert program("logs", "--api", api, "--around", at, "--follow").returncode == 2
        assert program("logs", "--api", api, "--level", "loud").returncode == 2
        assert program("logs", "--api", api, "--timewindow", "0").returncode == 2
        away = program("logs", "--api", f"http://127.0.0.1:{free_port()}")
        assert away.returncode == 75
        assert away.stderr.count("\n") == 1

        output, notices = tmp_path / "followed", tmp_path / "notices"
        with output.open("wb") as stream, notices.open("wb") as errors:
            follower = subprocess.Popen(
                [sys.executable, str(ROOT / "main.py"), "logs", "--follow", "--json", "--api", api],
                stdout=stream,
                stderr=errors,
            )
        try:

            def followed() -> list[str]:
                return [json.loads(each)["message"] for each in output.read_text().splitlines()]

            wait_for(lambda: len(followed()) == 3, "the last lines")
            ask(connection, "uploadLogs", **entry("new"))
            wait_for(lambda: followed()[3:] == ["new"], "the new one")
            # It comes back, and misses nothing.
            daemon.process.kill()
            daemon.wait()
            daemon = start_daemon(config(port), debug=False).wait_ready()
            with client(port) as other:
                ask(other, "uploadLogs", **entry("after"))
            wait_for(lambda: followed()[4:] == ["after"], "the entries after the daemon's return")
            # However often it tried meanwhile: each reason once, and the return.
            said = notices.read_text().splitlines()
            assert len(set(said)) == len(said)
            assert said[0].endswith("; trying again")
            assert said[-1].endswith(": following again")
        finally:
            follower.terminate()
            follower.wait(LIMIT_S)


def test_the_command_logs_shows_any_text_in_any_encoding(start_daemon: StartDaemon) -> None:
    port = free_port()
    start_daemon(config(port), debug=False).wait_ready()
    with client(port) as connection:
        ask(connection, "uploadLogs", **entry("école 漢"))
    for encoding, expected in (("ascii", "\\xe9cole \\u6f22"), ("utf-8", "école 漢")):
        environ = {"PYTHONIOENCODING": encoding}
        shown = program("logs", "--api", f"http://127.0.0.1:{port}", environ=environ)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert shown.stdout.rstrip().endswith(f"addon-1: {expected}")


def test_the_command_follow_shows_all_it_was_asked_for_over_several_pages(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    port, count = free_port(), 900
    start_daemon(config(port), debug=False).wait_ready()
    with client(port) as connection:
        for first in range(0, count, 100):
            logs = [entry(f"{first + n} {'x' * 20_000}") for n in range(100)]
            assert ask(connection, "uploadLogs", logs=logs)["accepted"] == 100
        page = requests.get(f"http://127.0.0.1:{port}/log?limit={count}", timeout=LIMIT_S).json()
        assert len(page["logs"]) < count
    output = tmp_path / "followed"
    arguments = ["logs", "--follow", "--api", f"http://127.0.0.1:{port}", "--limit", str(count)]
    with output.open("wb") as stream:
        follower = subprocess.Popen(
            [sys.executable, str(ROOT / "main.py"), *arguments], stdout=stream
        )
    try:

        def shown() -> list[str]:
            return [
                line.split("addon-1: ")[1].split()[0] for line in output.read_text().splitlines()
            ]

        wait_for(lambda: output.stat().st_size > count * 20_000, "all of them")
        with client(port) as connection:
            ask(connection, "uploadLogs", **entry("new"))
        wait_for(lambda: output.read_text().endswith("new\n"), "the new one")
        assert shown() == [*map(str, range(count)), "new"]
    finally:
        follower.terminate()
        follower.wait(LIMIT_S)


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


def test_levels_are_coloured_in_a_terminal_alone(start_daemon: StartDaemon) -> None:
    port = free_port()
    start_daemon(config(port), debug=False).wait_ready()
    with client(port) as connection:
        ask(connection, "uploadLogs", **entry("it broke", level="error"))
    command = [sys.executable, str(ROOT / "main.py"), "logs", "--api", f"http://127.0.0.1:{port}"]
    primary, secondary = os.openpty()
    environ = {**os.environ, "TERM": "xterm-256color"}
    environ.pop("NO_COLOR", None)
    with open(primary, "rb", closefd=True) as terminal:  # noqa: PTH123 - a descriptor, no path
        subprocess.run(command, stdout=secondary, check=True, timeout=60, env=environ)
        os.close(secondary)
        shown = terminal.read1(65536).decode()
    assert "\x1b[31mit broke\x1b[0m" in shown
    plain = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environ)
    assert "it broke" in plain.stdout
    assert "\x1b" not in plain.stdout


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
