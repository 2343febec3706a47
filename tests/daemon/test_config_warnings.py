"""Warnings about a valid config."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import zmq.auth

from monitor.daemon.config import load
from monitor.daemon.config_warnings import remarks
from monitor.tokens import Role, create_token
from tests.ports import free_port
from tests.servers.daemon import StartDaemon, run_program

UNREACHABLE = "logs: logs cannot be uploaded or read"


def said(file: Path, text: str) -> list[str]:
    file.write_text(text)
    return [remark.removeprefix(str(file)) for remark in remarks(load(str(file)))]


def test_logs_that_nothing_can_reach_are_remarked_on(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    (only,) = said(file, "relay: {}\nlogs: {}")
    assert only.startswith(f":2: {UNREACHABLE}: the config has neither a section api nor")
    for text in ("logs: {}\napi: {}", "logs: {zeromq_uri: [127.0.0.1, 1]}", "logs: false", ""):
        assert said(file, text) == []


@pytest.mark.parametrize(("mode", "warned"), [(0o646, True), (0o602, True), (0o664, False)])
def test_a_tokens_file_that_anyone_may_write_is_remarked_on(
    tmp_path: Path, mode: int, warned: bool
) -> None:
    file, tokens = tmp_path / "config.yml", tmp_path / "tokens.yml"
    create_token(tokens, "ops", Role.ADMIN)
    tokens.chmod(mode)
    found = said(file, f"api:\n  tokens_file: {tokens}\nlogs: {{}}")
    expected = f":2: api.tokens_file: {tokens} is world-writable (mode {mode:04o}): any"
    assert [line.startswith(expected) for line in found] == [True] * warned
    # What nobody reads is nobody's danger, and neither is what is not there.
    assert said(file, "relay: {}") == []
    assert said(file, f"api: {{tokens_file: {tokens}.none}}") == []


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        (
            "zeromq_uri: [0.0.0.0, 1]",
            "zeromq_uri",
            "0.0.0.0:1 is open to other hosts without",
        ),
        ("zeromq_uri: ['*', 1]\nrelay: {}", "zeromq_uri", "anyone who can connect can write"),
        (
            "zeromq_uri: ['::', 1]\nrelay: {allow_remote_exit: true}",
            "zeromq_uri",
            "and stop the daemon (allow_remote_exit)",
        ),
        ("logs: {zeromq_uri: [10.0.0.1, 1]}", "logs.zeromq_uri", "without logs.curve: tokens"),
    ],
)
def test_zeromq_sockets_open_to_other_hosts_without_curve_are_remarked_on(
    tmp_path: Path, text: str, key: str, problem: str
) -> None:
    (found,) = said(tmp_path / "config.yml", text)
    assert found.startswith(f":1: {key}: ")
    assert problem in found


def test_zeromq_sockets_on_loopback_or_with_curve_are_fine(tmp_path: Path) -> None:
    _, secret = zmq.auth.create_certificates(tmp_path, "server")
    (tmp_path / "keys").mkdir()
    zmq.auth.create_certificates(tmp_path / "keys", "peer")
    curve = f"curve: {{secret_key_file: {secret}, public_keys_dir: {tmp_path}/keys}}"
    for uri in ("[127.0.0.1, 1]", "['::1', 1]", "[localhost, 1]"):
        text = f"zeromq_uri: {uri}\nlogs: {{zeromq_uri: {uri}}}"
        assert said(tmp_path / "config.yml", text) == []
    text = f"zeromq_uri: ['*', 1]\nrelay: {{{curve}}}\nlogs: {{zeromq_uri: ['*', 2], {curve}}}"
    assert said(tmp_path / "config.yml", text) == []
    assert said(tmp_path / "config.yml", "zeromq_uri: ['*', 1]\nrelay: false") == []


@pytest.mark.integration_test
def test_check_config_says_it_and_calls_the_config_good(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_text("logs: {}")
    environ = {**os.environ, "STATE_DIRECTORY": str(tmp_path)}
    done = run_program("check-config", "-c", str(file), env=environ)
    assert done.returncode == 0
    assert done.stderr.startswith(f"recodex-monitor: {file}:1: {UNREACHABLE}")
    assert done.stderr.count("\n") == 1
    assert "timewindow: 60.0" in done.stdout


@pytest.mark.integration_test
def test_the_log_says_it_at_the_start_and_at_a_reload(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens.yml"
    create_token(tokens, "ops", Role.ADMIN)
    config: dict[str, Any] = {
        "relay": False,
        "api": {"uri": ["127.0.0.1", free_port()], "tokens_file": str(tokens)},
    }
    daemon = start_daemon(config).wait_ready()
    assert "world-writable" not in daemon.log
    tokens.chmod(0o666)
    daemon.reload()
    assert "[WARNING]" in daemon.wait_log("is world-writable (mode 0666)")
    assert daemon.stop() == 0
    directory = tmp_path / "again"
    again = start_daemon(config, directory=directory).wait_ready()
    assert again.log.count("is world-writable (mode 0666)") == 1
    assert again.stop() == 0
