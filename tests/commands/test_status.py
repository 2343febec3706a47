"""``status``: one screen about a running daemon; and where commands look for its config."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.servers.daemon import run_program
from tests.web.whole import Whole, whole


@pytest.fixture(scope="module")
def daemon() -> Iterator[Whole]:
    with whole(tokens=True) as running:
        down = {"id": 1, "name": "shop\x1b[31m", "url": f"http://127.0.0.1:{free_port()}/"}
        assert running.request("POST", "/job", json=down).status_code == 201
        up = {"id": 2, "name": "blog", **running.mock()}
        assert running.request("POST", "/job", json=up).status_code == 201
        running.wait_for_state(1, "down")
        running.wait_for_state(2, "up")
        yield running


def status(daemon: Whole, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "RECODEX_MONITOR_TOKEN": daemon.tokens["reader"]}
    return run_program("status", *arguments, env=environ)


@pytest.mark.integration_test
def test_status_names_the_parts_and_the_sites_that_are_down(daemon: Whole) -> None:
    done = status(daemon, "--api", daemon.url)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("recodex-monitor ")
    named = {line.split()[0] for line in lines[1:] if line.startswith("  ")}
    assert named >= {"relay", "probes", "aggregation", "logs", "web"}
    at = lines.index("2 sites: 1 is down:")
    assert lines[at + 1].startswith("  1 shop\\x1b[31m, for ")
    assert "refused" in lines[at + 1]
    assert "blog" not in done.stdout


@pytest.mark.integration_test
def test_status_as_json_is_one_object(daemon: Whole) -> None:
    found = json.loads(status(daemon, "--json", "--api", daemon.url).stdout)
    assert {"version", "started_at", "parts"} <= found.keys()
    assert [job["id"] for job in found["sites_down"]] == [1]


@pytest.mark.integration_test
def test_an_error_names_where_the_address_is_from(daemon: Whole, tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_text(f"api: {{uri: [127.0.0.1, {free_port()}]}}")
    done = status(daemon, "-c", str(file))
    assert done.returncode == 75
    assert done.stderr.rstrip().endswith(f"(the address in {file})")
