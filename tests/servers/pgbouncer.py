"""A real PgBouncer in front of the tests' PostgreSQL, in session mode, on a free loopback port."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import pytest

from tests.ports import free_port
from tests.waiting import wait_for

__all__ = ["StartPooler"]

StartPooler = Callable[..., str]

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


@pytest.fixture
def start_pooler(program: Callable[..., str], tmp_path: Path) -> Iterator[StartPooler]:
    """Return a function that starts a pooler in front of a database's URL and gives its URL."""
    running: list[subprocess.Popen[bytes]] = []

    def start(url: str, **settings: object) -> str:
        parts, listen = urlsplit(url), free_port()
        file = tmp_path / "pgbouncer.ini"
        user = "postgres" if os.geteuid() == 0 else os.environ.get("USER", "")
        # All clients become this user at the server.
        more = "\n".join(f"{key} = {value}" for key, value in settings.items())
        text = _CONFIG.format(
            host=parts.hostname, port=parts.port, listen=listen, user=user, more=more
        )
        file.write_text(text.replace("\n[pgbouncer]", f" user={parts.username}\n[pgbouncer]"))
        # PgBouncer refuses to run as root, and reads its file as the other user.
        tmp_path.chmod(0o755)
        for folder in tmp_path.parents[:2]:
            folder.chmod(folder.stat().st_mode | 0o055)
        command = [program("pgbouncer", package="pgbouncer"), "--quiet", str(file)]
        running.append(subprocess.Popen(command, cwd="/"))
        found = urlunsplit(parts._replace(netloc=f"{parts.username}@127.0.0.1:{listen}"))

        def answers() -> bool:
            try:
                psycopg2.connect(found, connect_timeout=5).close()
            except psycopg2.OperationalError:
                return False
            return True

        wait_for(answers, "PgBouncer")
        return found

    yield start
    for process in running:
        process.terminate()
        process.wait(60)
