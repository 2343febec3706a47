"""A whole daemon whose database is in trouble: it says so once, and continues by itself."""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from monitor.store import RETRY_S, DatabaseSettings, postgres_connecting, silence, threads
from tests.ports import free_port
from tests.servers.cut import CutProxy
from tests.servers.daemon import ROOT, DaemonProcess, StartDaemon
from tests.servers.pgbouncer import StartPooler
from tests.servers.postgres import PostgresServer, make_server
from tests.store.opened import opened
from tests.waiting import LIMIT_S, wait_for

pytestmark = pytest.mark.integration_test

# s in which everything works once the database is well.
_MOST_S = 10.0


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    server = make_server({"fsync": "off", "shared_buffers": "32MB"})
    try:
        server.start()
        yield server
    finally:
        server.remove()


class Watched:
    """A daemon with all parts that keep something in the database, and what it does."""

    def __init__(self, start_daemon: StartDaemon, database: dict[str, Any]) -> None:
        api = free_port()
        self._url = f"http://127.0.0.1:{api}"
        site = f"{self._url}/website_mock?status=200&delay=0&size=1"
        hook = {"receivers": ["hook"]}
        config = {
            "probes": {"jobs": [{"id": 1, "name": "a", "url": site, "interval": 0.5}]},
            "aggregation": {"flush_interval": 0.2},
            "logs": {},
            "alerts": {
                "receivers": [{"name": "hook", "webhook": "http://127.0.0.1:9/"}],
                "rules": [
                    {"name": "site", "watch": "site", **hook},
                    {"name": "silence", "watch": "silence", "intervals": 1000, **hook},
                    {"name": "logs", "watch": "logs", "min_level": "critical", **hook},
                ],
            },
            "api": {"uri": ["127.0.0.1", api], "website_mock": True},
            "database": database,
        }
        self.daemon: DaemonProcess = start_daemon(config, debug=False).wait_ready()
        self.wait_well()
        self.forget()

    def forget(self) -> None:
        """Forget what the log has so far."""
        self._read = len(self.daemon.log)

    def said(self, text: str) -> list[str]:
        """Return new lines that match."""
        lines = self.daemon.log[self._read :].splitlines()
        return [line for line in lines if "[asyncio]" not in line and re.search(text, line)]

    def wait_well(self) -> None:
        """Wait until results are counted, logs are stored, and every part is well."""
        since = time.time()

        entry = {"level": "info", "time": since, "sender": "a", "message": "b"}

        def stores() -> bool:
            return bool(self._ask("POST", "/log", json=entry).get("status") == "ok")

        def counts() -> bool:
            found = self._ask("GET", "/job/1/result?limit=1").get("items")
            return bool(found and found[0]["scheduled_at"] > since)

        wait_for(stores, "logs are stored")
        wait_for(counts, "results are counted")
        wait_for(lambda: self._ask("GET", "/healthz")["status"] == "ok", "every part is well")

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        return requests.request(method, self._url + path, timeout=LIMIT_S, **options).json()


@pytest.mark.timeout(300)
async def test_every_trouble_costs_a_line_when_it_begins_and_one_when_it_is_over(
    server: PostgresServer, start_daemon: StartDaemon, start_pooler: StartPooler, tmp_path: Path
) -> None:
    name = server.create_database()
    server.execute("ALTER ROLE postgres SET default_transaction_read_only = off")
    server.execute("CREATE ROLE monitor LOGIN PASSWORD 'first'")
    server.execute(f"ALTER DATABASE {name} OWNER TO monitor")
    rules = server.directory / "data" / "pg_hba.conf"
    rules.write_text(f"host all monitor 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
    server.execute("SELECT pg_reload_conf()")
    password = tmp_path / "password"
    password.write_text("first\n")
    address = CutProxy(server.port)
    database: dict[str, Any] = {
        "url": f"postgresql://monitor@127.0.0.1:{address.port}/{name}",
        "password_file": str(password),
    }
    async with opened(DatabaseSettings(**database)):
        pass
    pooled = urlsplit(start_pooler(server.url(name))).port
    standby = server.standby()

    def cut_off() -> None:
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'monitor'"
        )

    def rotate() -> None:
        server.execute("ALTER ROLE monitor PASSWORD 'second'")
        cut_off()

    def give_connections(count: int) -> None:
        server.execute(f"ALTER ROLE monitor CONNECTION LIMIT {count}")
        cut_off()

    def take_writes(only_read: str) -> None:
        server.execute(f"ALTER SYSTEM SET default_transaction_read_only = {only_read}")
        server.execute("SELECT pg_reload_conf()")

    def lead_to(port: int | None) -> None:
        assert port is not None
        address.target = port
        address.cut()
        address.mend()

    troubles: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "restart": (server.stop, server.start),
        "crash": (server.crash, server.start),
        "silence": (address.freeze, address.mend),
        "password": (rotate, lambda: password.write_text("second\n")),
        "connections": (
            lambda: give_connections(0),
            lambda: server.execute("ALTER ROLE monitor CONNECTION LIMIT -1"),
        ),
        "read-only": (lambda: take_writes("on"), lambda: take_writes("off")),
        "pooler": (start_pooler.stop, start_pooler.start_again),
        "standby": (lambda: lead_to(standby.port), standby.promote),
    }
    try:
        watched = Watched(start_daemon, database)
        for trouble, (begin, end) in troubles.items():
            if trouble == "pooler":
                lead_to(pooled)
                watched.wait_well()
            if trouble == "standby":
                lead_to(server.port)
                standby.start()
                watched.wait_well()
            watched.forget()
            begin()
            wait_for(lambda: watched.said(r"\[ERROR\]"), f"a line about {trouble}")
            end()
            watched.wait_well()
            lines = watched.said(r"monitor\.store|\[WARNING\]|\[ERROR\]")
            # A commit that was never answered.
            lines = [line for line in lines if "continuing from the stored offsets" not in line]
            assert len(lines) == 2, (trouble, lines)
            assert "; trying again" in lines[0]
            assert re.search("available again|accepts writes again", lines[1]), lines
    finally:
        address.close()
        standby.remove()


def test_no_pause_is_too_long_for_what_waits_on_the_database() -> None:
    longest_s = RETRY_S[1] + threads._RECONNECT_PAUSE_S
    assert longest_s + DatabaseSettings().connect_timeout <= _MOST_S
    assert silence._PATIENCE_S + DatabaseSettings().connect_timeout <= _MOST_S
    # A server that vanished without a word, and one that answers nothing.
    connection = postgres_connecting._CONNECTION
    silent_s = connection["keepalives_idle"] + connection["keepalives_interval"]
    assert max(silent_s, connection["tcp_user_timeout"] / 1000) <= _MOST_S
    checked = 0
    for file in (ROOT / "monitor").rglob("*.py"):
        text = file.read_text()
        if "monitor.store" not in text:
            continue
        module = importlib.import_module(
            ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        )
        for name in re.findall(r"Backoff\(\*(\w*RETRY_S)\)", text):
            checked += 1
            if name != "_BUS_RETRY_S":
                assert getattr(module, name)[1] <= RETRY_S[1], (file, name)
    assert checked > 10
