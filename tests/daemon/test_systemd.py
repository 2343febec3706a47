"""What the daemon says to its service manager."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from monitor.daemon.systemd import ServiceManager


def test_a_service_manager_that_reads_nothing_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        manager = ServiceManager()
        manager.ready()
        for _ in range(100_000):  # far more than a socket holds
            manager.watchdog()
        manager.close()
        assert notify.recv(100) == b"READY=1"
