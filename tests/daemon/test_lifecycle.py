"""The life of the daemon, as systemd and an administrator see it."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.ports import free_port
from tests.relay.broker import Broker
from tests.servers.daemon import ROOT, StartDaemon, run_program
from tests.waiting import wait_for

pytestmark = pytest.mark.integration_test


@pytest.fixture
def ports() -> dict[str, Any]:
    return {
        "websocket_uri": ["127.0.0.1", free_port()],
        "zeromq_uri": ["127.0.0.1", free_port()],
    }


def test_ready_when_both_sockets_are_bound(
    start_daemon: StartDaemon, ports: dict[str, Any]
) -> None:
    daemon = start_daemon(ports).wait_ready()
    for key in ("websocket_uri", "zeromq_uri"):
        socket.create_connection(tuple(ports[key])).close()
    wait_for(lambda: daemon.notices("STATUS"), "a status")
    assert daemon.notices("STATUS")[-1].startswith("relay: 0 clients, 0 channels")
    assert daemon.stop() == 0
    assert daemon.notices("STOPPING") == ["1"]


def test_the_watchdog_is_fed_from_the_loop(
    start_daemon: StartDaemon, ports: dict[str, Any]
) -> None:
    daemon = start_daemon(ports, environ={"WATCHDOG_USEC": "300000"}).wait_ready()
    wait_for(lambda: len(daemon.notices("WATCHDOG")) > 3, "WATCHDOG=1 again and again")


def test_sigterm_gives_clients_what_is_queued_and_1001(
    start_daemon: StartDaemon, ports: dict[str, Any]
) -> None:
    daemon = start_daemon(ports).wait_ready()
    broker = Broker(f"tcp://127.0.0.1:{ports['zeromq_uri'][1]}")
    with connect(f"ws://127.0.0.1:{ports['websocket_uri'][1]}/") as client:
        client.send("c")
        for number in range(2000):
            broker.task("c", number)
        client.recv(timeout=60)
        wait_for(lambda: "2000 messages" in daemon.notices("STATUS")[-1], "all received")
        daemon.process.terminate()
        got = 1
        with pytest.raises(ConnectionClosed):
            while True:
                client.recv(timeout=60)
                got += 1
        assert (got, client.close_code) == (2000, 1001)
    assert daemon.wait() == 0
    broker.close()


def test_sigint_ends_it_alike(start_daemon: StartDaemon, ports: dict[str, Any]) -> None:
    daemon = start_daemon(ports).wait_ready()
    daemon.process.send_signal(signal.SIGINT)
    assert daemon.wait() == 0


def test_a_client_that_never_reads_does_not_hold_the_end(
    start_daemon: StartDaemon, ports: dict[str, Any]
) -> None:
    daemon = start_daemon({**ports, "relay": {"client_stall": 3600}}).wait_ready()
    broker = Broker(f"tcp://127.0.0.1:{ports['zeromq_uri'][1]}")
    with socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(tuple(ports["websocket_uri"]))
        stuck.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            b"\x81\x81\0\0\0\0c"
        )
        for _ in range(10_000):
            broker.send("c", "TASK", "x" * 1000, "COMPLETED")
        wait_for(lambda: "10000 messages" in daemon.notices("STATUS")[-1], "all received")
        assert daemon.stop() == 0
    broker.close()


def test_reload_takes_up_changes_and_keeps_clients(
    start_daemon: StartDaemon, ports: dict[str, Any]
) -> None:
    daemon = start_daemon({**ports, "relay": {"max_messages": 10}}).wait_ready()
    broker = Broker(f"tcp://127.0.0.1:{ports['zeromq_uri'][1]}")
    url = f"ws://127.0.0.1:{ports['websocket_uri'][1]}/"
    with connect(url) as client:
        client.send("c")
        daemon.wait_log("subscribed to c")
        daemon.write_config(
            {
                **ports,
                "relay": {"max_messages": 3, "max_message_bytes": 1000, "origins": ["https://a"]},
            }
        )
        daemon.reload()
        assert "relay.max_message_bytes" in daemon.wait_log(
            "changed but not applied; restart to apply: "
        )
        assert [int(usec) > 0 for usec in daemon.notices("MONOTONIC_USEC")] == [True]
        for number in range(9):
            broker.task("c", number)
        broker.send("c", "FINISHED")
        assert [client.recv(timeout=60) for _ in range(10)][-1] == '{"command": "FINISHED"}'
    with connect(url) as late:
        late.send("c")
        assert json.loads(late.recv(timeout=60))["task_id"] == "t7"
    broker.close()


def test_a_bad_reload_changes_nothing_and_says_so(
    start_daemon: StartDaemon, ports: dict[str, Any]
) -> None:
    daemon = start_daemon(ports).wait_ready()
    for bad, complaint in (
        ("relay: {keep_finishd: 3}", "config.yml:1: relay.keep_finishd: unknown key; did you mean"),
        ("relay: [", "not YAML"),
        ("", "config.yml: is empty"),
        (
            "relay: {tls: {certificate: /nowhere, key: /nowhere}}",
            "relay.tls.certificate: cannot read",
        ),
    ):
        daemon.write_config(bad)
        daemon.reload()
        line = daemon.wait_log(complaint)
        assert "reload failed, nothing changed" in line
    with connect(f"ws://127.0.0.1:{ports['websocket_uri'][1]}/") as client:
        client.send("still here")
        daemon.wait_log("subscribed to still here")
    assert daemon.stop() == 0


def test_a_full_disk_at_the_start_is_a_failure_and_not_to_be_tried_again_by_hand(
    tmp_path: Path, ports: dict[str, Any]
) -> None:
    log = str(tmp_path / "monitor.log")
    (tmp_path / "config.yml").write_text(
        json.dumps({**ports, "relay": False, "logs": {}, "logger": {"file": log}})
    )
    # No file may grow past 4096 bytes: what a full disk does, for this process alone.
    done = subprocess.run(
        ["sh", "-c", f"ulimit -f 8; exec {sys.executable} -m monitor -c {tmp_path}/config.yml"],
        cwd=ROOT,
        env={**os.environ, "STATE_DIRECTORY": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "[CRITICAL] database" in done.stderr.splitlines()[-1]


def test_the_log_level_reloads(start_daemon: StartDaemon, ports: dict[str, Any]) -> None:
    daemon = start_daemon(ports).wait_ready()
    daemon.write_config({**ports, "logger": {"file": str(daemon.log_file), "level": "error"}})
    daemon.reload()
    url = f"ws://127.0.0.1:{ports['websocket_uri'][1]}/"
    with connect(url) as client:
        client.send("quiet")
    daemon.write_config({**ports, "logger": {"file": str(daemon.log_file), "level": "info"}})
    daemon.reload()
    with connect(url) as client:
        client.send("loud")
        daemon.wait_log("subscribed to loud")
    assert "quiet" not in daemon.log


@pytest.mark.parametrize("key", ["websocket_uri", "zeromq_uri"])
def test_a_port_in_use_ends_it_with_1_and_a_line(
    tmp_path: Path, ports: dict[str, Any], key: str
) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        ports[key] = ["127.0.0.1", holder.getsockname()[1]]
        file = tmp_path / "config.yml"
        file.write_text(json.dumps({**ports, "logger": {"file": str(tmp_path / "log")}}))
        done = run_program("-c", str(file))
    assert done.returncode == 1
    address = f"127.0.0.1:{ports[key][1]}"
    assert (
        f"{key}: cannot listen on {address}: Address already in use (perhaps by another"
        in done.stderr
    )
    assert f"ss -ltnp sport = :{ports[key][1]} shows" in done.stderr
    assert done.stderr.count("cannot listen") == 1


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ("websocket_uri: [127.0.0.1]", ":1: websocket_uri: "),
        ("relay:\n  level: loud", ":2: relay.level: "),
        (
            "\nrelay:\n  keep_idle: -1",
            ":3: relay.keep_idle: expected a number, more than 0, not -1",
        ),
        ("relay:\n  orgins: []", ":2: relay.orgins: unknown key; did you mean origins?"),
    ],
)
def test_a_bad_config_ends_it_with_78_and_a_line(tmp_path: Path, config: str, line: str) -> None:
    file = tmp_path / "config.yml"
    file.write_text(config)
    for arguments in (("-c", str(file)), ("check-config", "-c", str(file))):
        done = run_program(*arguments)
        assert done.returncode == 78
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith(f"recodex-monitor: {file}{line}")


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ("api:\n  uri: [0.0.0.0, {port}]", ":2: api.uri: 0.0.0.0:{port} is open to other"),
        ("api:\n  uri: [127.0.0.1, {port}]\n  tokens_file: {bad}", ":3: api.tokens_file: {bad}"),
        ("logs:\n  zeromq_uri: ['*', {port}]", ":2: logs.zeromq_uri: *:{port} is open to"),
        ("probes: {{source: file, jobs_file: /no}}", ":1: probes.jobs_file: cannot read /no: "),
        ("probes:\n source: file\n jobs_file: {bad}", ":3: probes.jobs_file: {bad} holds no list"),
        ("probes:\n id: 2", ":2: probes.id: there is no range 2"),
    ],
)
def test_what_the_start_refuses_check_config_refuses_in_the_same_words(
    tmp_path: Path, ports: dict[str, Any], config: str, line: str
) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text('{"a": 1}')
    names = {"port": free_port(), "bad": bad}
    file, state = tmp_path / "config.yml", tmp_path / "state"
    rest = {**ports, "logger": {"file": str(tmp_path / "log")}}
    file.write_text(
        config.format(**names) + "".join(f"\n{key}: {json.dumps(rest[key])}" for key in rest)
    )
    environ = {**os.environ, "STATE_DIRECTORY": str(state)}
    checked = run_program("check-config", "-c", str(file), env=environ)
    assert checked.returncode == 78
    said = checked.stderr.removeprefix("recodex-monitor: ")
    assert said.startswith(f"{file}{line.format(**names)}")
    assert (checked.stdout, said.count("\n")) == ("", 1)
    assert not state.exists()
    assert not (tmp_path / "log").exists()
    started = run_program("-c", str(file), env=environ)
    assert started.returncode == 78
    assert said in started.stderr
    # It is refused before anything is open.
    assert "listening" not in started.stderr
    assert not state.exists()


def test_check_config_of_a_good_config_with_all_parts_writes_and_binds_nothing(
    tmp_path: Path, ports: dict[str, Any]
) -> None:
    file, state = tmp_path / "config.yml", tmp_path / "state"
    jobs = tmp_path / "jobs.json"
    jobs.write_text("[]")
    config = {
        **ports,
        "logger": {"file": str(tmp_path / "log")},
        "relay": {"history_file": "history.db"},
        "probes": {"source": "file", "jobs_file": str(jobs)},
        "aggregation": {},
        "cluster": {},
        "logs": {"zeromq_uri": ["127.0.0.1", free_port()]},
        "api": {"uri": ["127.0.0.1", free_port()], "tokens_file": str(tmp_path / "tokens.yml")},
    }
    file.write_text(json.dumps(config))
    environ = {**os.environ, "STATE_DIRECTORY": str(state)}
    uris = (config["websocket_uri"], config["zeromq_uri"], config["api"]["uri"])
    # While the daemon runs, its addresses are in use.
    listeners = [socket.create_server(tuple(uri)) for uri in uris]
    try:
        checked = run_program("check-config", "-c", str(file), env=environ)
    finally:
        for listener in listeners:
            listener.close()
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "history_file: history.db" in checked.stdout
    assert sorted(tmp_path.iterdir()) == [file, jobs]


def test_a_missing_file_is_a_bad_config(tmp_path: Path) -> None:
    done = run_program("-c", str(tmp_path / "none.yml"))
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == (
        f"recodex-monitor: {tmp_path}/none.yml: cannot read the file: No such file or directory\n"
    )


def test_the_soft_limit_of_descriptors_is_raised_and_a_low_hard_one_said(
    start_daemon: StartDaemon, ports: dict[str, Any], tmp_path: Path
) -> None:
    def lower(hard: int) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))

    file = tmp_path / "config.yml"
    log = tmp_path / "log"
    file.write_text(
        json.dumps({**ports, "logger": {"file": str(log)}, "relay": {"max_clients": 3000}})
    )
    for hard, limit, said in ((4096, 3000, False), (1000, 1000, True)):
        log.unlink(missing_ok=True)
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "main.py"), "-c", str(file)],
            preexec_fn=lambda hard=hard: lower(hard),  # type: ignore[misc]  # noqa: PLW1509
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for(lambda: log.exists() and "ready:" in log.read_text(), "ready")
            soft, _ = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
            assert soft >= limit
            assert ("hard limit of 1000 file descriptors" in log.read_text()) == said
        finally:
            process.terminate()
            assert process.wait(60) == 0


def test_the_soft_limit_of_descriptors_follows_a_reload(
    start_daemon: StartDaemon, ports: dict[str, Any]
) -> None:
    api = {"uri": ["127.0.0.1", free_port()], "tokens_file": None, "max_connections": 10}
    few = {**ports, "relay": {"max_clients": 10}, "api": api}
    daemon = start_daemon(few).wait_ready()
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (1024, 8192))

    def soft_after(clients: int, connections: int) -> int:
        api["max_connections"] = connections
        daemon.write_config({**few, "relay": {"max_clients": clients}})
        daemon.reload()
        return resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)[0]

    assert 3010 <= soft_after(3000, 10) < 6000
    assert 6000 <= soft_after(3000, 3000) < 8192
    assert "hard limit" not in daemon.log
    assert soft_after(9000, 10) == 8192
    daemon.wait_log("the hard limit of 8192 file descriptors is lower")


@pytest.mark.integration_test
def test_descriptors_that_run_out_are_said_and_the_relay_works_again(
    start_daemon: StartDaemon, ports: dict[str, Any]
) -> None:
    site = f"http://127.0.0.1:{free_port()}/"
    parts = {
        "api": {"uri": ["127.0.0.1", free_port()], "tokens_file": None},
        "probes": {"jobs": [{"id": 1, "url": site, "interval": 1}]},
        "aggregation": {"flush_interval": 1},
        "logs": {},
    }
    daemon = start_daemon({**ports, **parts}).wait_ready()
    _, hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    used = max(int(each.name) for each in Path(f"/proc/{daemon.pid}/fd").iterdir())
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (used + 40, hard))
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(socket.create_connection(("127.0.0.1", ports["websocket_uri"][1])))
        daemon.wait_log(f"file descriptors: almost all of {used + 40} are in use; new connections")
    daemon.wait_log("file descriptors: there are enough again")
    with connect(f"ws://127.0.0.1:{ports['websocket_uri'][1]}/") as client:
        client.send("job")
        assert client.ping().wait(60)


def test_without_a_config_the_defaults_are_the_old_monitors(tmp_path: Path) -> None:
    from monitor.daemon.config import load

    config = load(None).config
    assert config.websocket_uri == ("127.0.0.1", 4567)
    assert config.zeromq_uri == ("127.0.0.1", 7894)


def test_a_relay_alone_imports_nothing_of_the_other_parts(
    start_daemon: StartDaemon, ports: dict[str, Any]
) -> None:
    daemon = start_daemon(ports).wait_ready()
    maps = Path(f"/proc/{daemon.pid}/maps").read_text()
    for library in ("pydantic_core", "pycurl", "psycopg2", "_crc32c"):
        assert library not in maps


def test_a_reload_asked_for_during_the_start_is_done_after_it(
    start_daemon: StartDaemon, ports: dict[str, Any]
) -> None:
    # Held from the process's first moment on, as from main's first step (a mask is inherited).
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        daemon = start_daemon(ports)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_ready(2).wait_log("reloaded")
    assert daemon.stop() == 0


def test_a_reload_during_the_start_does_not_end_the_daemon() -> None:
    # Where the daemon would load its config, the signal comes.
    program = (
        "import os, signal, sys, monitor.daemon.lifecycle, monitor.main\n"
        "def start(file):\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    print('still there')\n"
        "    return 0\n"
        "monitor.daemon.lifecycle.run_daemon = start\n"
        "sys.exit(monitor.main.main([]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "still there\n")
