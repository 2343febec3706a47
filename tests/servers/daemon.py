"""The daemon as users run it: a process with a config file, and systemd's side of its socket."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.waiting import LIMIT_S, wait_for

ROOT = Path(__file__).resolve().parents[2]
_CHEAP_DEBUG = str(Path(__file__).with_name("cheap_debug"))


def run_program(
    *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``python main.py`` to its end, in this environment or the tests' own."""
    return subprocess.run(
        [sys.executable, str(ROOT / "main.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        env=env,
    )


class DaemonProcess:
    """One run of ``python main.py``; what it notifies is in :attr:`notified`, in order."""

    def __init__(
        self,
        directory: Path,
        config: Mapping[str, Any] | str,
        *,
        arguments: tuple[str, ...] = (),
        environ: Mapping[str, str] | None = None,
        debug: bool = True,
        program: tuple[str, ...] = (str(ROOT / "main.py"),),
    ) -> None:
        self.directory = directory
        self.config_file = directory / "config.yml"
        self.log_file = directory / "monitor.log"
        self.notified: list[str] = []
        self.write_config(config)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify = directory / f"notify-{time.monotonic_ns()}"
        self._socket.bind(str(notify))
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self.stderr_file = directory / "stderr"
        environment = {
            **os.environ,
            "NOTIFY_SOCKET": str(notify),
            "STATE_DIRECTORY": str(directory),
            **({"PYTHONASYNCIODEBUG": "1", "PYTHONPATH": _CHEAP_DEBUG} if debug else {}),
            **(environ or {}),
        }
        with self.stderr_file.open("ab") as stderr:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    *program,
                    *(arguments or ("-c", str(self.config_file))),
                ],
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stderr(self) -> str:
        return self.stderr_file.read_text(errors="replace")

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def write_config(self, config: Mapping[str, Any] | str) -> None:
        if not isinstance(config, str):
            others = {
                "logger": {"file": str(self.log_file), "level": "debug"},
                # The defaults are what anybody else on this machine has.
                "websocket_uri": ["127.0.0.1", 0],
                "zeromq_uri": ["127.0.0.1", 0],
            }
            config = yaml.safe_dump({**others, **config}, sort_keys=False)
        self.config_file.write_text(config)

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data = self._socket.recv(65536)
                if not data:
                    return
                self.notified.append(data.decode())

    def notices(self, key: str) -> list[str]:
        """Return the values notified for ``key`` so far."""
        return [
            line.split("=", 1)[1]
            for message in list(self.notified)
            for line in message.splitlines()
            if line.startswith(f"{key}=")
        ]

    def wait_ready(self, times: int = 1) -> DaemonProcess:
        def ready() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}: {self.stderr}")
            return len(self.notices("READY")) >= times

        wait_for(ready, f"READY=1; stderr: {self.stderr}")
        return self

    def wait_log(self, text: str, *, limit_s: float = LIMIT_S) -> str:
        """Wait until a log line has ``text`` and return the line."""
        found = wait_for(
            lambda: [line for line in self.log.splitlines() if text in line],
            f"{text!r} in the log, which is:\n{self.log}",
            limit_s=limit_s,
        )
        return str(found[-1])

    def reload(self) -> None:
        """SIGHUP, and wait for the READY=1 that must follow."""
        before = len(self.notices("READY"))
        self.process.send_signal(signal.SIGHUP)
        self.wait_ready(before + 1)

    def wait(self) -> int:
        """Wait for its end and return the exit status."""
        return self.process.wait(LIMIT_S)

    def stop(self) -> int:
        """SIGTERM, and return the exit status."""
        self.process.terminate()
        return self.wait()

    def release(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(LIMIT_S)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._listener.join(2)
        self._socket.close()


StartDaemon = Callable[..., DaemonProcess]


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[StartDaemon]:
    """Return a function that starts a daemon with a config; all are ended after the test."""
    running: list[DaemonProcess] = []

    def start(
        config: Mapping[str, Any] | str, *, directory: Path = tmp_path, **options: Any
    ) -> DaemonProcess:
        directory.mkdir(exist_ok=True)
        daemon = DaemonProcess(directory, config, **options)
        running.append(daemon)
        return daemon

    yield start
    for daemon in running:
        daemon.release()
    for daemon in running:
        assert "Traceback" not in daemon.stderr, daemon.stderr
        assert "Traceback" not in daemon.log.replace("DEBUG", ""), daemon.log
