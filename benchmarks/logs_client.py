"""The server that benchmarks.logs measures, and what its clients say to it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from monitor.store import DatabaseSettings

__all__ = ["Server", "entry", "ms", "paced", "percentile", "upload"]

ROOT = Path(__file__).resolve().parents[1]
MESSAGE = "the valve of line %d was opened and closed again after %d ms, as planned"


class Server:
    """The log service behind its HTTP server, in a process of its own."""

    def __init__(self, settings: DatabaseSettings, **logs: Any) -> None:
        given = {"file": settings.file, "url": settings.url, "logs": logs}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.logs_server", json.dumps(given)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = self.answer()["port"]

    def answer(self) -> dict[str, Any]:
        """Return the server's next line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the server ended")
        found: dict[str, Any] = json.loads(line)
        return found

    def tell(self, **command: Any) -> dict[str, Any]:
        """Have the server do something of its own and return the result."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def connect(self) -> connect:
        """Return a WebSocket to be opened."""
        return connect(
            f"ws://127.0.0.1:{self.port}/ws",
            compression=None,
            ping_interval=None,
            max_size=2**26,
            open_timeout=60,
        )

    def cpu_s(self) -> float:
        """Return the processor time that the server has had."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


def entry(number: int, at: float, sender: str = "addon-1") -> dict[str, Any]:
    text = MESSAGE % (number % 97, number % 1013)
    return {"level": "info", "time": at, "sender": sender, "message": text}


def upload(entries: list[dict[str, Any]]) -> str:
    return json.dumps({"action": "uploadLogs", "logs": entries})


def percentile(values: list[float], percent: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))]


def ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


async def paced(
    client: ClientConnection, begin: float, period: float, seconds: float, sender: str
) -> list[tuple[float, float]]:
    """Upload an entry each period; return when each was sent, and how long its answer took."""
    waits = []
    number = 0
    while number * period < seconds:
        due = begin + number * period
        await asyncio.sleep(max(0, due - time.perf_counter()))
        sent = time.perf_counter()
        await client.send(upload([entry(number, time.time(), sender)]))
        answer = json.loads(await client.recv())
        assert answer["accepted"] == 1, answer
        # From when it was due: a client that was kept waiting must not hide it.
        waits.append((sent, time.perf_counter() - min(sent, due + 0.005)))
        number += 1
    return waits
