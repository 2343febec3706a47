"""A real PostgreSQL of the tests' own, on a free loopback port."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import missing
from tests.ports import free_port

_WAIT_S = 60.0
_numbers = itertools.count(1)


def find_programs() -> Path | None:
    """Return the folder of the newest PostgreSQL server's programs, or None."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else []
    folders += Path("/usr/lib/postgresql").glob("*/bin")
    versions = [
        (int(folder.parent.name), folder) for folder in folders if folder.parent.name.isdigit()
    ]
    return max(versions)[1] if versions else folders[0] if folders else None


class PostgresServer:
    """One throw-away cluster; superuser ``postgres``, everybody trusted on loopback.

    With a ``primary`` it is a streaming standby of that.
    """

    def __init__(
        self,
        programs: Path,
        *,
        settings: dict[str, str] | None = None,
        primary: PostgresServer | None = None,
    ) -> None:
        self._programs = programs
        self.directory = Path(tempfile.mkdtemp(prefix="recodex-monitor-postgres-"))
        self.port = free_port()
        self._settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            **(settings or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            shutil.chown(self.directory, *(["postgres"] * 2))
        if primary is not None:
            address = ("-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres")
            self._run_as_owner(
                "pg_basebackup", *address, "-D", self._data, "-R", "-c", "fast", "--no-sync"
            )
            return
        self._run_as_owner(
            "initdb",
            "-D",
            self._data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "--no-sync",
            "-E",
            "UTF8",
            "--locale=C",
        )

    @property
    def _data(self) -> str:
        return str(self.directory / "data")

    @property
    def pid(self) -> int:
        """The process, while it runs."""
        assert self._process is not None
        return self._process.pid

    def url(self, database: str, user: str = "postgres") -> str:
        """Return the URL of a database for a role."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it and wait until it takes connections.

        To be called from the main thread: the server ends with the thread that started it.
        """
        import psycopg2

        options = [
            item for key, value in self._settings.items() for item in ("-c", f"{key}={value}")
        ]
        log = (self.directory / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                self._as_owner("postgres", "-D", self._data, *options), stdout=log, stderr=log
            )
        deadline = time.monotonic() + _WAIT_S
        while True:
            try:
                psycopg2.connect(self.url("postgres"), connect_timeout=2).close()
                return
            except psycopg2.OperationalError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise RuntimeError((self.directory / "log").read_text()[-2000:]) from None
                time.sleep(0.02)  # it tells nobody when it is ready

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT fast, SIGQUIT at once without a checkpoint."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(_WAIT_S)
            self._process = None

    def crash(self) -> None:
        """Stop it as a power cut would, but for what the disk has."""
        self.stop(signal.SIGQUIT)

    def standby(self) -> PostgresServer:
        """Return a streaming standby of this one, not yet started."""
        return PostgresServer(self._programs, settings={"fsync": "off"}, primary=self)

    def promote(self) -> None:
        """Make a standby the primary."""
        self.execute("SELECT pg_promote()")

    def remove(self) -> None:
        """Stop it and delete all of it."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.directory, ignore_errors=True)

    def execute(
        self, sql: str, database: str = "postgres", user: str = "postgres"
    ) -> list[tuple[Any, ...]]:
        """Run one statement outside a transaction and return its rows."""
        import psycopg2

        with contextlib.closing(psycopg2.connect(self.url(database, user))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall() if cursor.description else []

    def create_database(self) -> str:
        """Create an empty database and return its name."""
        name = f"monitoring_{os.getpid()}_{next(_numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def _as_owner(self, program: str, *arguments: str) -> list[str]:
        command = [str(self._programs / program), *arguments]
        if os.geteuid() != 0:
            return command
        # PostgreSQL refuses to run as root; the death signal leaves no server behind.
        return [
            "setpriv",
            "--reuid=postgres",
            "--regid=postgres",
            "--init-groups",
            "--pdeathsig=QUIT",
            "--",
            *command,
        ]

    def _run_as_owner(self, program: str, *arguments: str) -> None:
        subprocess.run(
            self._as_owner(program, *arguments), check=True, capture_output=True, cwd="/"
        )


def make_server(settings: dict[str, str] | None = None) -> PostgresServer:
    """Return a new cluster that is not yet started, or skip the test."""
    programs = find_programs()
    if programs is None:
        missing("initdb is not installed (Debian package postgresql)")
        raise AssertionError
    if os.geteuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            missing("there is no user postgres to run PostgreSQL as")
    return PostgresServer(programs, settings=settings)


@contextlib.contextmanager
def own_server(**settings: str) -> Iterator[PostgresServer]:
    """Give a server with small buffers, or skip the test."""
    # A crash of the server is survived without fsync; only one of the machine is not.
    server = make_server({"fsync": "off", "shared_buffers": "32MB"} | settings)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL for all tests; a test that stops it starts it again."""
    with own_server(max_connections="60", shared_buffers="64MB") as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """Return the URL of a new empty database, for its superuser."""
    return postgres_server.url(postgres_server.create_database())
