"""Some seconds of `make chaos`, with fixed seeds: all parts on, embedded and with servers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.servers.daemon import ROOT
from tests.servers.kafka import find_jars
from tests.servers.postgres import make_server

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(480)]


def chaos(variant: str, *, seed: int, seconds: float) -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "tests.chaos", "--variant", variant,
            "--seed", str(seed), "--minutes", str(seconds / 60),
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=450,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    # It looked at something, and something happened.
    assert done.stdout.count("  holds   ") >= 10
    assert "terminate" in done.stdout


def test_embedded_all_promises_hold(program: Callable[..., str]) -> None:
    program("cc", "gcc", package="gcc")
    chaos("embedded", seed=7, seconds=10)


def test_with_servers_all_promises_hold(program: Callable[..., str]) -> None:
    program("cc", "gcc", package="gcc")
    program("java", package="default-jre-headless")
    find_jars(program)
    make_server().remove()
    chaos("servers", seed=27, seconds=12)
