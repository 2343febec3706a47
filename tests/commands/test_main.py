"""The command line: one line for each mistake, and the exit status that goes with it."""

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

from monitor import __version__
from monitor.commands import COMMANDS
from monitor.commands.progress import Progress
from monitor.main import main
from tests.relay.broker import Broker
from tests.servers.daemon import ROOT, StartDaemon, free_port
from tests.waiting import wait_for


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["folow"], 2, "no command 'folow'; did you mean follow?"),
        (["nonsense"], 2, "no command 'nonsense'; see recodex-monitor --help"),
        (["--nonsense"], 2, "--nonsense"),
        (["follow"], 2, "channel"),
        (["follow", "c", "--expect", "0"], 2, "--expect: at least 1 task"),
        (["follow", "c", "--url", "http://x/"], 2, "is not ws://HOST:PORT/"),
        (["check-config"], 2, "-c"),
        (["play", "/nowhere"], 1, "/nowhere: cannot read it"),
        (["play", "--uri", "nonsense"], 2, "--uri: nonsense is not tcp://HOST:PORT"),
        (["play", "--speed", "0"], 2, "--speed: a number above 0"),
    ],
)
def test_mistakes_get_a_line_and_a_status(
    capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, said: str
) -> None:
    assert main(arguments) == status
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert error.startswith("recodex-monitor: ")
    assert said in error


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"recodex-monitor {__version__}\n"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(re.search(rf"^  {re.escape(name)} ", shown, re.M) for name in COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"recodex-monitor {command}" in capsys.readouterr().out


def test_the_config_may_stand_before_or_after_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yml"
    file.write_text("relay: {keep_idle: 12}")
    for arguments in (["-c", str(file), "check-config"], ["check-config", "-c", str(file)]):
        assert main(arguments) == 0
        assert "keep_idle: 12" in capsys.readouterr().out


@pytest.mark.parametrize(
    "line", ["[]", "{}", "nonsense", '{"t": 1, "frames": []}', '{"t": "NaN", "frames": ["a"]}']
)
def test_a_recording_that_is_none_is_refused_by_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    file = tmp_path / "recording"
    file.write_text('{"t": 0, "frames": ["c", "STARTED"]}\n' + line)
    assert main(["play", str(file)]) == 78
    assert f"{file}:2: " in capsys.readouterr().err


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


# With a relay


@pytest.fixture
def config() -> dict[str, Any]:
    return {
        "websocket_uri": ["127.0.0.1", free_port()],
        "zeromq_uri": ["127.0.0.1", free_port()],
        "relay": {"end_after_failed": 0.5},
    }


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "main.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


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
    out, err = follower.communicate(timeout=30)
    assert (follower.returncode, err) == (0, "")
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
    out, err = follower.communicate(timeout=30)
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
    daemon.wait_log("subscribed to c")
    follower.send_signal(signal.SIGINT)
    assert follower.communicate(timeout=10) == ("", "")
    assert follower.returncode == 0


@pytest.mark.integration_test
def test_a_terminal_gets_a_bar(start_daemon: StartDaemon, config: dict[str, Any]) -> None:
    daemon = start_daemon(config).wait_ready()
    control, terminal = pty.openpty()
    follower = subprocess.Popen(
        [
            *(sys.executable, str(ROOT / "main.py"), "follow", "student_10"),
            *("--expect", "11", "-c", str(daemon.config_file)),
        ],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"},
    )
    os.close(terminal)
    daemon.wait_log("subscribed to student_10")
    run("play", "--speed", "10", "--channel", "student_10", "-c", str(daemon.config_file))
    shown = bytearray()

    def ended() -> bool:
        while select.select([control], [], [], 0)[0]:
            try:
                data = os.read(control, 65536)
            except OSError:
                return True
            shown.extend(data)
        return follower.poll() is not None

    wait_for(ended, "the end of the job", limit_s=30)
    os.close(control)
    assert follower.wait(10) == 0
    screen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    last = [line for line in re.split(r"[\r\n]+", screen) if line.strip()][-1]
    assert "student_10" in last
    assert "11/11" in last
    assert "9 done 1 failed 1 skipped" in last
    assert "FINISHED" in last
    assert "━" in last
