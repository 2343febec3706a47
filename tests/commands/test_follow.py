"""The commands play and follow: a recording goes in, its progress comes out."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zmq

from monitor.commands.progress import Progress
from monitor.main import main
from tests.commands.programs import run, start
from tests.ports import free_port
from tests.relay.broker import Broker
from tests.servers.daemon import ROOT, DaemonProcess, StartDaemon
from tests.waiting import wait_for

NO_MESSAGE_YET = (
    "recodex-monitor: the relay has no message of this channel yet; waiting for the first\n"
)


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "{}",
        "nonsense",
        "[" * 100_000,
        '{"t": 1, "frames": []}',
        '{"t": "NaN", "frames": ["a"]}',
        '{"t": -5, "frames": ["a"]}',
        '{"t": NaN, "frames": ["a"]}',
        '{"t": true, "frames": ["a"]}',
        '{"t": 1' + "0" * 400 + ', "frames": ["a"]}',
        '{"t": 1, "frames": ["a", 5]}',
        '{"t": 1, "frames": ["a", null]}',
        '{"t": 1, "frames": "ab"}',
        '{"t": 1, "frames": ["\\u1234"]}',
    ],
    ids=lambda line: line[:40],
)
def test_a_recording_that_is_none_is_refused_by_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    file = tmp_path / "recording"
    file.write_text('{"t": 0, "frames": ["c", "STARTED"]}\n' + line)
    assert main(["play", str(file)]) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert f"{file}:2: " in error


def test_progress_counts_by_state() -> None:
    progress = Progress(expected=4)
    for state in ("COMPLETED", "COMPLETED", "FAILED", "SKIPPED"):
        line = progress.take(json.dumps({"command": "TASK", "task_id": "t", "task_state": state}))
    assert line == "TASK t SKIPPED (4/4)"
    assert progress.take('{"command": "FINISHED"}') == "FINISHED"
    assert progress.finished
    assert progress.summary() == "4 of 4 done: 2 completed, 1 failed, 1 skipped"


@pytest.mark.parametrize("text", ["", "[]", "{}", '"x"', '{"command": 1}'])
def test_progress_refuses_what_is_no_message(text: str) -> None:
    with pytest.raises(ValueError):
        Progress().take(text)


@pytest.fixture
def config() -> dict[str, Any]:
    return {
        "websocket_uri": ["127.0.0.1", free_port()],
        "zeromq_uri": ["127.0.0.1", free_port()],
        "relay": {"end_after_failed": 0.5},
    }


@pytest.mark.integration_test
def test_play_and_follow_show_a_job_from_start_to_end(
    start_daemon: StartDaemon, config: dict[str, Any]
) -> None:
    daemon = start_daemon(config).wait_ready()
    file = str(daemon.config_file)
    follower = start("follow", "student_7", "--expect", "11", "-c", file)
    daemon.wait_log("subscribed to student_7")
    played = run("play", "--speed", "20", "--channel", "student_7", "-c", file)
    assert (played.returncode, played.stderr) == (0, "")
    assert played.stdout.splitlines()[-1].startswith("sent 16 messages to tcp://127.0.0.1:")
    out, err = follower.communicate(timeout=60)
    assert (follower.returncode, err) == (0, NO_MESSAGE_YET)
    lines = out.splitlines()
    assert lines[0] == "student_7: DOWNLOADED"
    assert lines[-1] == "student_7: finished, 11 of 11 done: 9 completed, 1 failed, 1 skipped"
    again = run("follow", "student_7", "--json", "-c", file)
    assert [json.loads(line)["command"] for line in again.stdout.splitlines()][-1] == "FINISHED"


@pytest.mark.integration_test
def test_follow_ends_with_1_where_the_job_failed(
    start_daemon: StartDaemon, config: dict[str, Any]
) -> None:
    daemon = start_daemon(config).wait_ready()
    broker = Broker(f"tcp://127.0.0.1:{config['zeromq_uri'][1]}")
    broker.send("student_8", "FAILED")
    done = run("follow", "student_8", "-c", str(daemon.config_file))
    broker.close()
    assert done.returncode == 1
    assert "ended without FINISHED (last: FAILED)" in done.stdout


@pytest.mark.integration_test
def test_follow_waits_for_a_relay_that_is_away_and_goes_on_after_a_restart(
    start_daemon: StartDaemon, config: dict[str, Any], tmp_path: Path
) -> None:
    first = start_daemon(config, directory=tmp_path / "first").wait_ready()
    file = str(first.config_file)
    follower = start("follow", "student_9", "-c", file)
    first.wait_log("subscribed to student_9")
    assert first.stop() == 0
    second = start_daemon(config, directory=tmp_path / "second").wait_ready()
    second.wait_log("subscribed to student_9")
    assert run("play", "--speed", "50", "--channel", "student_9", "-c", file).returncode == 0
    out, err = follower.communicate(timeout=60)
    assert follower.returncode == 0
    assert "trying again" in err
    assert out.splitlines()[-1].startswith("student_9: finished")


@pytest.mark.integration_test
def test_clients_give_up_with_75_where_no_relay_answers() -> None:
    port = free_port()
    followed = run("follow", "c", "--url", f"ws://127.0.0.1:{port}/", "--wait", "0.2")
    played = run("play", "--uri", f"tcp://127.0.0.1:{port}", "--wait", "0.2")
    for done in (followed, played):
        assert done.returncode == 75
        assert "gave up waiting" in done.stderr.splitlines()[-1]


@pytest.mark.integration_test
def test_an_interrupted_follow_ends_quietly(
    start_daemon: StartDaemon, config: dict[str, Any]
) -> None:
    daemon = start_daemon(config).wait_ready()
    follower = start("follow", "c", "-c", str(daemon.config_file))
    assert follower.stderr is not None
    assert follower.stderr.readline() == NO_MESSAGE_YET
    follower.send_signal(signal.SIGINT)
    assert follower.communicate(timeout=60) == ("", "")
    assert follower.returncode == 0


@pytest.mark.integration_test
def test_follow_lets_no_task_command_the_terminal(
    start_daemon: StartDaemon, config: dict[str, Any]
) -> None:
    daemon = start_daemon(config).wait_ready()
    broker = Broker(f"tcp://127.0.0.1:{config['zeromq_uri'][1]}")
    broker.send("student_8", "TASK", "a\x1b[2J\nb", "COMPLETED")
    broker.send("student_8", "ENDED\x07")
    broker.send("student_8", "FAILED")
    done = run("follow", "student_8", "-c", str(daemon.config_file))
    broker.close()
    assert done.stdout.splitlines()[:2] == [
        r"student_8: TASK a\x1b[2J\nb COMPLETED (1)",
        r"student_8: ENDED\x07",
    ]
    assert followed_in_a_terminal(daemon, "student_8").count("\x1b[2J") == 0


@pytest.mark.integration_test
def test_a_terminal_gets_a_bar(start_daemon: StartDaemon, config: dict[str, Any]) -> None:
    daemon = start_daemon(config).wait_ready()
    played_to(daemon, "student_10")
    last = screen_lines(followed_in_a_terminal(daemon, "student_10"))[-1]
    assert "student_10" in last
    assert "11/11" in last
    assert "1 failed 1 skipped" in last
    assert "FINISHED" in last
    assert "━" in last


@pytest.mark.integration_test
@pytest.mark.parametrize("columns", [16, 40, 79, 80, 100])
def test_the_bar_fits_the_terminal(
    start_daemon: StartDaemon, config: dict[str, Any], columns: int
) -> None:
    daemon = start_daemon(config).wait_ready()
    played_to(daemon, "student_12345678")
    shown = screen_lines(followed_in_a_terminal(daemon, "student_12345678", COLUMNS=str(columns)))
    bars = [line for line in shown if "━" in line]
    assert {len(line) for line in bars} == {columns}
    assert "11/11" in bars[-1]
    assert "student_12345678"[: columns // 3 - 2] in bars[-1]
    assert "0/11" in bars[0]
    # The counts are in the bar or, without room, below it.
    if columns < 79:
        counts = "9 completed, 1 failed, 1 skipped"
        assert shown[-1] == f"student_12345678: finished, 11 of 11 done: {counts}"
    else:
        assert "1 failed 1 skipped" in shown[-1]
        assert bars[-1].count("━") >= 12


@pytest.mark.integration_test
def test_a_terminal_that_redraws_nothing_gets_lines(
    start_daemon: StartDaemon, config: dict[str, Any]
) -> None:
    daemon = start_daemon(config).wait_ready()
    played_to(daemon, "student_11")
    shown = followed_in_a_terminal(daemon, "student_11", TERM="dumb", COLUMNS="40")
    lines = shown.splitlines()
    assert lines[:2] == ["student_11: DOWNLOADED", "student_11: STARTED"]
    assert lines[-1].startswith("student_11: finished, 11 of 11 done")
    assert "\x1b" not in shown


def played_to(daemon: DaemonProcess, channel: str) -> None:
    played = run("play", "--speed", "100", "--channel", channel, "-c", str(daemon.config_file))
    assert played.returncode == 0, played.stderr


def screen_lines(shown: str) -> list[str]:
    """Return all texts of a line, one after another, without colours."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    return [line for line in re.split(r"[\r\n]+", plain) if line.strip()]


def followed_in_a_terminal(daemon: DaemonProcess, channel: str, **environ: str) -> str:
    """Return all that ``follow`` writes to a terminal until the job has ended."""
    control, terminal = pty.openpty()
    follower = subprocess.Popen(
        [
            *(sys.executable, str(ROOT / "main.py"), "follow", channel),
            *("--expect", "11", "-c", str(daemon.config_file)),
        ],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", **environ},
    )
    os.close(terminal)
    shown = bytearray()

    def ended() -> bool:
        while select.select([control], [], [], 0)[0]:
            try:
                data = os.read(control, 65536)
            except OSError:
                return True
            shown.extend(data)
        return follower.poll() is not None

    wait_for(ended, "the end of the job")
    os.close(control)
    assert follower.wait(60) in (0, 1)
    return shown.decode()


@pytest.mark.integration_test
def test_play_reaches_a_relay_at_an_ipv6_address() -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.setsockopt(zmq.IPV6, 1)
        router.setsockopt(zmq.LINGER, 0)
        try:
            port = router.bind_to_random_port("tcp://[::1]")
        except zmq.ZMQError:
            pytest.skip("no IPv6 on this machine")
        assert main(["play", "--uri", f"tcp://[::1]:{port}", "--speed", "1000"]) == 0
        assert router.poll(10_000)


@pytest.mark.integration_test
def test_play_without_a_key_names_the_options_that_a_relay_with_curve_needs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, secret = zmq.curve_keypair()
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.setsockopt(zmq.LINGER, 0)
        router.curve_server = True
        router.curve_secretkey = secret
        port = router.bind_to_random_port("tcp://127.0.0.1")
        assert main(["play", "--uri", f"tcp://127.0.0.1:{port}", "--wait", "1"]) == 75
    assert "--key and --server-key" in capsys.readouterr().err
