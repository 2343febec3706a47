"""A real PgBouncer in front of the tests' PostgreSQL, in session mode, on a free loopback port."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import pytest

from tests.ports import free_port
from tests.waiting import wait_for

__all__ = ["StartPooler"]

# PgBouncer's documentation recommends these for drivers that send startup parameters.
_CONFIG = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = session
ignore_startup_parameters = options, extra_float_digits
user = {user}
{more}
"""


class StartPooler:
    """Starts a pooler in front of a database's URL and gives its URL."""

    def __init__(self, binary: str, folder: Path) -> None:
        self._binary = binary
        self._folder = folder
        self._running: list[tuple[Path, str, subprocess.Popen[bytes]]] = []

    def __call__(self, url: str, **settings: object) -> str:
        parts, listen = urlsplit(url), free_port()
        file = self._folder / f"pgbouncer-{listen}.ini"
        user = "postgres" if os.geteuid() == 0 else os.environ.get("USER", "")
        # All clients become this user at the server.
        more = "\n".join(f"{key} = {value}" for key, value in settings.items())
        text = _CONFIG.format(
            host=parts.hostname, port=parts.port, listen=listen, user=user, more=more
        )
        file.write_text(text.replace("\n[pgbouncer]", f" user={parts.username}\n[pgbouncer]"))
        found = urlunsplit(parts._replace(netloc=f"{parts.username}@127.0.0.1:{listen}"))
        self._start(file, found)
        return found

    def _start(self, file: Path, url: str) -> None:
        command = [self._binary, "--quiet", str(file)]
        self._running.append((file, url, subprocess.Popen(command, cwd="/")))

        def answers() -> bool:
            try:
                psycopg2.connect(url, connect_timeout=5).close()
            except psycopg2.OperationalError:
                return False
            return True

        wait_for(answers, "PgBouncer")

    def reload(self, old: str, new: str) -> None:
        """Replace a text in the config of all of them, as an administrator would."""
        for file, _, process in self._running:
            file.write_text(file.read_text().replace(old, new))
            process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """Stop all of them."""
        for _, _, process in self._running:
            process.terminate()
            process.wait(60)

    def start_again(self) -> None:
        """Start those that were stopped."""
        stopped, self._running = self._running, []
        for file, url, _ in stopped:
            self._start(file, url)


@pytest.fixture
def start_pooler(program: Callable[..., str]) -> Iterator[StartPooler]:
    """Return what starts poolers, which end after the test."""
    with tempfile.TemporaryDirectory(prefix="recodex-monitor-pgbouncer-") as folder:
        # PgBouncer refuses to run as root, and reads its file again as the other user.
        Path(folder).chmod(0o755)
        poolers = StartPooler(program("pgbouncer", package="pgbouncer"), Path(folder))
        yield poolers
        poolers.stop()
