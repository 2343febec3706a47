"""Commands whose output can't be written, and that are interrupted before they have begun."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.servers.daemon import ROOT

pytestmark = pytest.mark.integration_test

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


CHECK = ["check-config", "-c", str(ROOT / "install/checkout.yml")]
# It prints by another library than the others.
PROBE = ["probe", "tcp://127.0.0.1:1"]


@pytest.mark.parametrize("arguments", [CHECK, PROBE])
def test_a_reader_that_has_enough_is_no_error(unread_pipe: int, arguments: list[str]) -> None:
    done = written_to("", arguments, pipe=unread_pipe)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [CHECK, PROBE])
def test_a_closed_stdout_is_one_line_and_1(arguments: list[str]) -> None:
    done = written_to(">&-", arguments)
    assert (done.returncode, done.stderr) == (
        1,
        "recodex-monitor: cannot write the output: stdout is closed\n",
    )
