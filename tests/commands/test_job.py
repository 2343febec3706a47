"""``job`` against a daemon that runs: what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from monitor.main import main
from tests.ports import free_port
from tests.servers.daemon import ROOT, StartDaemon
from tests.web.whole import Whole, whole


@pytest.fixture(scope="module")
def daemon() -> Iterator[Whole]:
    with whole(tokens=True) as running:
        for number, name in ((1, "first"), (2, "second \x1b[31m")):
            body = {"id": number, "name": name, **running.mock()}
            assert running.request("POST", "/job", json=body).status_code == 201
            running.wait_for_state(number, "up")
        yield running


def job(daemon: Whole, *arguments: str, role: str | None = "admin") -> tuple[int, str, str]:
    return command(daemon, "job", *arguments, token=daemon.tokens[role] if role else None)


def command(daemon: Whole, *arguments: str, token: str | None) -> tuple[int, str, str]:
    environ = {key: value for key, value in os.environ.items() if key != "RECODEX_MONITOR_TOKEN"}
    if token is not None:
        environ["RECODEX_MONITOR_TOKEN"] = token
    done = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), *arguments, "--api", daemon.url],
        capture_output=True,
        text=True,
        timeout=60,
        env=environ,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.integration_test
def test_list_has_a_line_a_job_and_no_name_commands_the_terminal(daemon: Whole) -> None:
    status, out, _ = job(daemon, "list")
    assert status == 0
    header, first, second = out.splitlines()
    assert header.split("\t")[:2] == ["ID", "STATE"]
    assert first.split("\t")[:2] == ["1", "up"]
    assert "\x1b" not in second
    assert job(daemon, "list", "--state", "down")[1].splitlines() == [header]


@pytest.mark.integration_test
def test_json_is_what_the_api_gives(daemon: Whole) -> None:
    _, out, _ = job(daemon, "list", "--json")
    assert [json.loads(line)["id"] for line in out.splitlines()] == [1, 2]
    _, out, _ = job(daemon, "show", "1", "--json")
    assert json.loads(out)["name"] == "first"
    _, out, _ = job(daemon, "show", "1")
    assert "state:     up" in out


@pytest.mark.integration_test
def test_stop_and_start_and_what_is_refused(daemon: Whole) -> None:
    assert job(daemon, "stop", "1")[:2] == (0, "job 1 (first) is stopped\n")
    status, _, error = job(daemon, "stop", "1")
    assert status == 1
    assert error.count("\n") == 1
    assert "already stopped" in error
    assert job(daemon, "list", "--state", "stopped")[1].splitlines()[1].startswith("1\tstopped")
    assert job(daemon, "start", "1")[:2] == (0, "job 1 (first) is started\n")
    assert "there is no job 9" in job(daemon, "show", "9")[2]
    assert "only an admin" in job(daemon, "stop", "1", role="reader")[2]
    assert "RECODEX_MONITOR_TOKEN" in job(daemon, "list", role=None)[2]


@pytest.mark.integration_test
def test_of_several_jobs_those_that_can_be_are_stopped(daemon: Whole) -> None:
    status, out, error = job(daemon, "stop", "1", "999", "2")
    assert status == 1
    assert [line.partition(" (")[0] for line in out.splitlines()] == ["job 1", "job 2"]
    assert error.count("\n") == 1
    assert "there is no job 999" in error
    assert job(daemon, "start", "2", "1")[0] == 0
    status, out, error = job(daemon, "stop", "1", "2", role="reader")
    assert (status, out, error.count("\n")) == (1, "", 1)
    status, out, error = job(daemon, "show", "999", "1", "998")
    assert (status, out.splitlines()[0], error.count("\n")) == (1, "job:       1 first", 2)


@pytest.mark.integration_test
@pytest.mark.parametrize("arguments", [["logs"], ["logs", "--follow"], ["job", "list"]])
def test_a_wrong_token_is_told_from_a_missing_one(daemon: Whole, arguments: list[str]) -> None:
    for token, said in (
        ("wrong", "the token in RECODEX_MONITOR_TOKEN is not valid"),
        (None, "a valid token is needed; set RECODEX_MONITOR_TOKEN"),
    ):
        error = f"recodex-monitor: {daemon.url}: {said}\n"
        assert command(daemon, *arguments, token=token) == (1, "", error)


@pytest.mark.integration_test
def test_the_longest_text_to_look_for_is_taken_and_a_longer_one_refused(daemon: Whole) -> None:
    token = daemon.tokens["reader"]
    assert command(daemon, "logs", "--contains", "a" * 4096, token=token) == (0, "", "")
    almost = ("--sender", "é" * 2000, "--contains", "a" * 3270)
    assert command(daemon, "logs", *almost, token=token) == (0, "", "")
    for option in ("--contains", "--sender"):
        status, _, error = command(daemon, "logs", option, "a" * 100_000, token=token)
        assert status == 2
        assert f"{option}: longer than 4096 characters" in error
    status, _, error = command(daemon, "logs", "--contains", "é" * 4000, token=token)
    assert (status, error.count("\n")) == (2, 1)
    assert "the request is too long" in error


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["job"], 2, "action"),
        (["job", "explode"], 2, "explode"),
        (["job", "show"], 2, "expected the id of a job"),
        (["job", "stop", "0"], 2, "above 0"),
        (["job", "list", "3"], 2, "expects no id"),
        (["job", "list", "--api", "nonsense"], 2, "nonsense"),
    ],
)
def test_mistakes_get_a_line_and_a_status(
    capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, said: str
) -> None:
    assert main(arguments) == status
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error


def test_a_daemon_that_is_away_is_75(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["job", "list", "--api", f"http://127.0.0.1:{free_port()}"]) == 75
    assert "is the daemon running" in capsys.readouterr().err


@pytest.mark.integration_test
def test_a_daemon_without_probes_says_so(
    capsys: pytest.CaptureFixture[str], start_daemon: StartDaemon
) -> None:
    port = free_port()
    start_daemon({"relay": False, "api": {"uri": ["127.0.0.1", port]}}).wait_ready()
    assert main(["job", "list", "--api", f"http://127.0.0.1:{port}"]) == 1
    assert "does not serve /job; is the part" in capsys.readouterr().err
