"""A daemon with the log service, and its clients."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from monitor.store import DatabaseSettings
from tests.servers.daemon import run_program

__all__ = ["LIMIT_S", "ask", "client", "config", "configured", "entry", "program"]

LIMIT_S = 60


def config(port: int, database: DatabaseSettings | None = None, **sections: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "relay": False,
        "logs": {"timewindow": 600},
        "api": {"uri": ["127.0.0.1", port], "tokens_file": None},
        **sections,
    }
    if database is not None and database.url is not None:
        given["database"] = {"url": database.url}
    return given


def program(
    *arguments: str, file: Path | None = None, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    of_file = () if file is None else ("-c", str(file))
    return run_program(*arguments, *of_file, env={**os.environ, **(environ or {})})


def configured(daemon_config: dict[str, Any], directory: Path) -> None:
    """Make the tables, where that is not the daemon's own affair."""
    if "database" not in daemon_config:
        return
    file = directory / "configure.yml"
    file.write_text(json.dumps(daemon_config))
    done = program("configure-database", file=file)
    assert done.returncode == 0, done.stderr


def entry(message: str, **fields: Any) -> dict[str, Any]:
    return {"level": "info", "time": time.time(), "sender": "addon-1", "message": message} | fields


def ask(client: ClientConnection, action: str, **message: Any) -> Any:
    client.send(json.dumps({"action": action, **message}))
    return json.loads(client.recv(timeout=LIMIT_S))


@contextlib.contextmanager
def client(port: int, token: str | None = None) -> Iterator[ClientConnection]:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    with connect(f"ws://127.0.0.1:{port}/ws", additional_headers=headers) as connection:
        yield connection
