"""``job`` against a daemon that runs: what it prints, and how it ends."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from unittest.mock import patch

import pytest

from monitor.main import main
from tests.commands.test_completion import need, script_for
from tests.ports import free_port
from tests.servers.daemon import ROOT, StartDaemon, run_program
from tests.waiting import wait_for
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
    """Run a command here: a process for each would take most of these tests' time."""
    environ = {key: value for key, value in os.environ.items() if key != "RECODEX_MONITOR_TOKEN"}
    if token is not None:
        environ["RECODEX_MONITOR_TOKEN"] = token
    with (
        patch.dict(os.environ, environ, clear=True),
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as error,
    ):
        status = main([*arguments, "--api", daemon.url])
    return status, out.getvalue(), error.getvalue()


@pytest.mark.integration_test
def test_list_has_a_line_a_job_and_no_name_commands_the_terminal(daemon: Whole) -> None:
    environ = {**os.environ, "RECODEX_MONITOR_TOKEN": daemon.tokens["admin"]}
    done = run_program("job", "list", "--api", daemon.url, env=environ)
    assert (done.returncode, done.stderr) == (0, "")
    header, first, second = done.stdout.splitlines()
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
def test_a_job_stops_until_a_time_of_here(daemon: Whole) -> None:
    until = datetime.fromtimestamp(time.time() // 1 + 3600).astimezone()
    said = f"job 1 (first) is stopped until {until.isoformat(' ')}\n"
    for text in (f"{until.timestamp():.0f}", until.isoformat(), f"{until:%Y-%m-%dT%H:%M:%S}"):
        assert job(daemon, "stop", "1", "--until", text)[:2] == (0, said)
        assert daemon.get("/job/1")["stopped_until"] == until.timestamp()
        assert f", until {until.isoformat(' ')}\n" in job(daemon, "show", "1")[1]
        assert job(daemon, "start", "1")[0] == 0
    for arguments, problem in (
        (("stop", "1", "--until", "soon"), "expected s or ms"),
        (("stop", "1", "--until", "2020-01-01"), "is in the past"),
        (("start", "1", "--until", "2999-01-01"), "--until is only for stop"),
    ):
        status, _, error = job(daemon, *arguments)
        assert (status, error.count("\n")) == (2, 1)
        assert problem in error


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
def test_a_user_in_the_url_does_not_take_the_place_of_the_token(daemon: Whole) -> None:
    host = daemon.url.removeprefix("http://")
    environ = {**os.environ, "RECODEX_MONITOR_TOKEN": daemon.tokens["reader"]}
    for arguments in (["job", "list"], ["logs", "--follow"], ["status"]):
        done = run_program(*arguments, "--api", f"http://me:hush@{host}", env=environ)
        assert done.returncode == 2
        assert "cannot both be sent" in done.stderr
        assert "hush" not in done.stderr


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


@pytest.mark.integration_test
def test_logs_finds_by_a_regular_expression_and_says_what_is_wrong_with_one(daemon: Whole) -> None:
    now = time.time()
    for number, text in enumerate(("disk 7", "Disk 8", "disks", "a" * 60 + "!")):
        entry = {"level": "info", "time": now - 10 + number, "sender": "a", "message": text}
        assert daemon.request("POST", "/notification", json=entry).status_code == 200
        assert daemon.request("POST", "/log", json=entry).status_code == 200
    token = daemon.tokens["reader"]
    status, out, error = command(daemon, "logs", "--regexp", r"(?i)^disk \d", token=token)
    assert (status, error) == (0, "")
    assert [line.rpartition(": ")[2] for line in out.splitlines()] == ["disk 7", "Disk 8"]
    for regexp, problem in (
        ("(", "regexp: not a regular expression: missing )"),
        ("(a+)+$", "regexp: takes too long on these entries"),
    ):
        for more in ([], ["--follow"]):
            status, out, error = command(daemon, "logs", "--regexp", regexp, *more, token=token)
            assert (status, out, error.count("\n")) == (1, "", 1), error
            assert problem in error


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
    assert "the part probes is off; a section probes in" in capsys.readouterr().err


@pytest.mark.integration_test
def test_a_job_is_added_changed_checked_and_removed(daemon: Whole) -> None:
    mock = daemon.mock()
    url, headers = mock["url"], f"headers={json.dumps(mock.get('headers', {}))}"
    keys = (headers, "name=third", "interval=3600", 'tags=["a", "b"]', "degraded_after=0.000001")
    status, out, err = job(daemon, "add", url, *keys, "--json")
    assert status == 0, err
    added = json.loads(out)
    number = str(added["id"])
    assert added["tags"] == ["a", "b"]
    # A new site is checked at once, not after up to an hour.
    daemon.wait_for_state(added["id"], "up")
    assert job(daemon, "change", number, "interval=1800", "degraded_after=null")[0] == 0

    # So is one whose question has changed.
    def is_checked() -> bool:
        last = daemon.get(f"/job/{number}")["last"]
        return last is not None and not last["degraded"]

    wait_for(is_checked, "a result that is not degraded")
    shown = daemon.get(f"/job/{number}")
    assert (shown["interval"], shown["name"], shown["state"]) == (1800, "third", "up")
    status, out, _ = job(daemon, "check", number, "--json")
    assert status == 0
    result = json.loads(out)
    assert (result["job_id"], result["up"], result["degraded"]) == (added["id"], True, False)
    assert daemon.get(f"/job/{number}")["last"]["scheduled_at"] == result["scheduled_at"]
    assert "is up" in job(daemon, "check", number)[1]
    status, _, err = job(daemon, "change", number, "intervl=1")
    assert (status, "unknown key" in err) == (1, True)
    status, _, err = job(daemon, "change", number, f"depends_on=[{number}]")
    assert (status, "depends_on" in err) == (1, True)
    assert job(daemon, "change", number, "depends_on=[1]")[0] == 0
    assert job(daemon, "change", "1", f"depends_on=[{number}]")[0] == 1
    assert job(daemon, "change", number, f"url={url}&x=1")[0] == 0
    assert job(daemon, "remove", number)[:2] == (0, f"job {number} is removed\n")
    assert job(daemon, "remove", number)[0] == 1
    assert job(daemon, "check", number)[0] == 1
    _, out, _ = job(daemon, "add", url, "--json")
    assert json.loads(out)["id"] == added["id"] + 1
    job(daemon, "remove", str(added["id"] + 1))


@pytest.mark.integration_test
def test_a_heartbeat_is_added_without_a_url_and_its_key_is_shown(daemon: Whole) -> None:
    status, out, err = job(daemon, "add", "kind=heartbeat", "name=backup", "interval=3600")
    assert status == 0, err
    added, reports = out.splitlines()
    number = added.split()[1]
    url = reports.split()[3]
    assert url.startswith(f"{daemon.url}/heartbeat/")
    path = url.removeprefix(daemon.url)
    assert daemon.request("POST", path, role=None).json() == {"job_id": int(number)}
    assert job(daemon, "remove", number)[0] == 0


@pytest.mark.integration_test
@pytest.mark.parametrize(
    "arguments",
    [
        ("add",),
        ("add", "name=a"),
        ("change",),
        ("change", "1"),
        ("change", "kind=heartbeat"),
        ("change", "x", "a=1"),
        ("add", "http://x/", "y"),
        ("check",),
        ("change", "1", "name=a", "name=b"),
        ("change", "1", 'headers={"A": "1", "A": "2"}'),
    ],
)
def test_what_add_and_change_need_is_a_usage_error(
    daemon: Whole, arguments: tuple[str, ...]
) -> None:
    assert job(daemon, *arguments)[0] == 2


@pytest.mark.integration_test
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_the_ids_of_jobs(daemon: Whole, tmp_path: Path, shell: str) -> None:
    need(shell)
    line = f"recodex-monitor job show --api {daemon.url} "
    # It asks for no longer than 2 s, and a busy machine may need more.
    token = daemon.tokens["reader"]
    found = wait_for(lambda: complete(shell, line, tmp_path, token=token), "jobs")
    form = {"bash": "{}  ({})", "zsh": "{}:{}", "fish": "{}\t{}"}[shell]
    assert found == [form.format(1, "first"), form.format(2, "second \\x1b[31m")]
    # Without a valid token, or without a daemon, there is nothing, and no word about it.
    assert complete(shell, line, tmp_path, token="wrong") == []
    nobody = f"recodex-monitor job show --api http://127.0.0.1:{free_port()} "
    assert complete(shell, nobody, tmp_path, token="wrong") == []


BASH = """
    eval "$1"
    COMP_LINE=$2 COMP_POINT=${#2} COMP_TYPE=63
    COMP_WORDS=($COMP_LINE "") COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _recodex_monitor
    printf '%s\\n' "${COMPREPLY[@]}"
"""
# zsh completes only in a terminal; these stand for its own functions.
ZSH = """
    compdef() { :; }
    _arguments() { [[ $1 == -C ]] && state=arguments || state=job; }
    _describe() { print -rl -- "${(@P)2}"; }
    eval "$1"
    LBUFFER=$2 words=(${(z)LBUFFER} "")
    shift words
    _recodex_monitor
"""
SHELLS = {
    "bash": ["bash", "-c", BASH, "bash"],
    "zsh": ["zsh", "-f", "-c", ZSH, "zsh"],
    "fish": ["fish", "--no-config", "-c", "echo $argv[1] | source; complete -C $argv[2]"],
}


def complete(shell: str, line: str, directory: Path, *, token: str) -> list[str]:
    """Return what a shell offers at the end of a line."""
    program = directory / "recodex-monitor"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/main.py "$@"\n')
    program.chmod(0o755)
    path = f"{directory}:{os.environ['PATH']}"
    done = subprocess.run(
        [*SHELLS[shell], script_for(shell), line],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "PATH": path, "RECODEX_MONITOR_TOKEN": token},
    )
    assert done.stderr == ""
    return [each for each in done.stdout.splitlines() if each]
