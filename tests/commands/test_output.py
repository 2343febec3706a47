"""Commands whose output can't be written, and that are interrupted before they have begun."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.tokens import Role, TokenFile, create_token
from tests.ports import free_port
from tests.servers.daemon import ROOT

PROGRAM = [sys.executable, str(ROOT / "main.py")]


def written_to(
    stdout: str,
    arguments: list[str],
    environ: dict[str, str] | None = None,
    *,
    pipe: int = subprocess.PIPE,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", f'"$@" {stdout}', "sh", *PROGRAM, *arguments],
        stdout=pipe,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **(environ or {})},
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written_is_one_line_and_1(unbuffered: str) -> None:
    arguments = ["check-config", "-c", str(ROOT / "install/checkout.yml")]
    full = written_to(">/dev/full", arguments, {"PYTHONUNBUFFERED": unbuffered})
    assert (full.returncode, full.stderr) == (
        1,
        "recodex-monitor: cannot write the output: No space left on device\n",
    )


@pytest.fixture
def unread_pipe() -> Iterator[int]:
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


@pytest.mark.parametrize("stdout", [">/dev/full", ">&-", ""], ids=["full", "closed", "unread"])
def test_a_token_that_cannot_be_shown_is_not_stored(
    tmp_path: Path, unread_pipe: int, stdout: str
) -> None:
    tokens, config = tmp_path / "tokens.yml", tmp_path / "config.yml"
    config.write_text(f"api: {{tokens_file: {tokens}}}")

    def create(
        name: str, stdout: str = "", pipe: int = subprocess.PIPE
    ) -> subprocess.CompletedProcess[str]:
        arguments = ["token", "create", name, "--role", "admin", "-c", str(config)]
        return written_to(stdout, arguments, pipe=pipe)

    assert create("first").stdout.startswith("rmt_")
    before = tokens.read_bytes()
    refused = create("second", stdout, pipe=unread_pipe)
    assert refused.returncode == 1
    assert refused.stderr.startswith("recodex-monitor: cannot write the ")
    assert refused.stderr.count("\n") == 1
    assert tokens.read_bytes() == before
    assert {each.name for each in tmp_path.iterdir()} == {"tokens.yml", "config.yml"}
    assert create("second").returncode == 0


def test_a_token_is_shown_before_it_is_stored(tmp_path: Path) -> None:
    stored: list[bool] = []
    file = tmp_path / "tokens.yml"
    token = create_token(file, "a", Role.ADMIN, show=lambda _: stored.append(file.exists()))
    assert stored == [False]
    read = TokenFile(file)
    read.load()
    assert read.identify(token) is not None


def test_a_reader_that_has_enough_is_no_error(unread_pipe: int) -> None:
    arguments = ["check-config", "-c", str(ROOT / "install/checkout.yml")]
    done = written_to("", arguments, pipe=unread_pipe)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("module", ["argparse", "rich"])
def test_an_interrupt_while_libraries_are_imported_ends_quietly(
    tmp_path: Path, module: str
) -> None:
    # A library that takes its time, and the interrupt for an error of its own.
    (tmp_path / f"{module}.py").write_text(
        "import sys, time\n"
        "print('importing', file=sys.stderr, flush=True)\n"
        "try:\n"
        "    time.sleep(60)\n"
        "except BaseException as error:\n"
        "    raise ImportError('interrupted') from error\n"
    )
    command = subprocess.Popen(
        [*PROGRAM, "logs", "--api", f"http://127.0.0.1:{free_port()}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert command.stderr is not None
    assert command.stderr.readline() == "importing\n"
    command.send_signal(signal.SIGINT)
    assert command.communicate(timeout=30) == ("", "")
    assert command.returncode == 0


@pytest.mark.parametrize(("encoding", "block"), [("ascii", "#"), ("utf-8", "█")])
def test_the_chart_of_a_probe_is_drawn_with_what_the_encoding_has(
    encoding: str, block: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as site:
        address = f"tcp://127.0.0.1:{site.getsockname()[1]}"
        done = written_to("", ["probe", address], {"PYTHONIOENCODING": encoding})
    assert (done.returncode, done.stderr) == (0, "")
    chart = [line.partition(" ms")[2].strip() for line in done.stdout.splitlines()[1:6]]
    assert set("".join(chart)) == {block}
