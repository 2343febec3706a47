"""The command logs, with a daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
import requests

from tests.logs.daemons import LIMIT_S, ask, client, config, entry, program
from tests.ports import free_port
from tests.servers.daemon import ROOT, StartDaemon
from tests.waiting import wait_for

pytestmark = pytest.mark.end_to_end


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
        assert datetime.fromisoformat(lines[0][:29]).utcoffset() is not None
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
