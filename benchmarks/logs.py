"""What the log service does a second, and how long its clients wait.

    benchmarks/run logs throughput|connections|purge|followers [--database postgresql|sqlite]
    benchmarks/run logs query

Each starts what it needs (a PostgreSQL cluster with its defaults but for max_wal_size, the
server in a process of its own, clients in this one) and prints one line of JSON. Beside the
figures stands how long one fsync takes on the disk, which bounds what durability can cost.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from monitor.store import DatabaseSettings
from tests.servers.postgres import make_server

ROOT = Path(__file__).resolve().parents[1]
MESSAGE = "the valve of line %d was opened and closed again after %d ms, as planned"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", choices=sorted(BENCHMARKS), help="default: all")
    parser.add_argument("--database", choices=["postgresql", "sqlite"], help="default: both")
    parser.add_argument("--seconds", type=float, default=10)
    args = parser.parse_args()
    for what in [args.what] if args.what else BENCHMARKS:
        kinds = [args.database] if args.database else ["postgresql", "sqlite"]
        # Only PostgreSQL is meant for ten million entries.
        for kind in ["postgresql"] if what == "query" else kinds:
            with tempfile.TemporaryDirectory(prefix="recodex-monitor-bench-") as directory:
                with database(kind, Path(directory)) as settings:
                    figures = asyncio.run(BENCHMARKS[what](settings, args))
                fsync = fsync_ms(Path(directory))
            shown = {"benchmark": what, "database": kind, **figures, **fsync}
            print(json.dumps(shown), flush=True)
    return 0


@contextlib.contextmanager
def database(kind: str, directory: Path) -> Iterator[DatabaseSettings]:
    if kind == "sqlite":
        yield DatabaseSettings(file=str(directory / "monitor.db"))
        return
    server = make_server({"max_connections": "20", "max_wal_size": "8GB"})
    try:
        server.start()
        yield DatabaseSettings(url=server.url(server.create_database()))
    finally:
        server.remove()


def fsync_ms(directory: Path) -> dict[str, float]:
    times = []
    with (directory / "fsync").open("wb") as file:
        for _ in range(500):
            file.write(b"x" * 4096)
            file.flush()
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - begun)
    return {"fsync_p50_ms": ms(percentile(times, 50)), "fsync_max_ms": ms(max(times))}


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
        """Have the server do something of its own and return what came of it."""
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


async def throughput(settings: DatabaseSettings, args: argparse.Namespace) -> dict[str, Any]:
    """4 connections, each with one batch of 500 on its way at a time."""
    with Server(settings, timewindow=3600, max_entries_per_second=1_000_000) as server:

        async def send(connection: ClientConnection, sender: str, until: float) -> int:
            stored = 0
            while time.perf_counter() < until:
                # What a device says lies behind it: the last half second, in order.
                since = time.time() - 0.5
                await connection.send(
                    upload([entry(n, since + n / 1000, sender) for n in range(500)])
                )
                answer = json.loads(await connection.recv())
                assert answer["accepted"] == 500, answer
                stored += 500
            return stored

        async with contextlib.AsyncExitStack() as stack:
            connections = [await stack.enter_async_context(server.connect()) for _ in range(4)]
            pairs = [(connection, f"addon-{n}") for n, connection in enumerate(connections)]
            await asyncio.gather(*(send(c, s, time.perf_counter() + 1) for c, s in pairs))
            begun, cpu = time.perf_counter(), server.cpu_s()
            until = begun + args.seconds
            stored = sum(await asyncio.gather(*(send(c, s, until) for c, s in pairs)))
            took = time.perf_counter() - begun
            cpu = server.cpu_s() - cpu
    return {"entries_per_s": round(stored / took), "server_cores": round(cpu / took, 2)}


async def connections(settings: DatabaseSettings, args: argparse.Namespace) -> dict[str, Any]:
    """1000 connections, one entry a second each, spread over the second."""
    count = 1000
    with Server(settings, timewindow=3600) as server:
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(server.connect()) for _ in range(count)]
            begin = time.perf_counter() + 0.5
            waits = await asyncio.gather(
                *(
                    paced(client, begin + number / count, 1.0, args.seconds, f"addon-{number}")
                    for number, client in enumerate(clients)
                )
            )
    # The first second warms up.
    found = [wait for client in waits for sent, wait in client if sent >= begin + 1]
    return {
        "uploads": len(found),
        "p50_ms": ms(percentile(found, 50)),
        "p99_ms": ms(percentile(found, 99)),
        "max_ms": ms(max(found)),
    }


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


async def query(settings: DatabaseSettings, args: argparse.Namespace) -> dict[str, Any]:
    """Read getLogs of a 10 s window among 10 M entries of an hour, 1000 senders."""
    total, window = 10_000_000, 3600
    with Server(settings, timewindow=window, cleanup_interval=3600) as server:
        end = float(int(time.time()))
        server.tell(do="stand still", at=end)
        begun = time.perf_counter()
        server.tell(do="fill", count=total, since=end - window + 1, until=end, senders=1000)
        filled = time.perf_counter() - begun
        kinds: dict[str, dict[str, Any]] = {
            "all": {},
            "sender": {"sender": "addon-7"},
            "min_level": {"min_level": "error"},
            "contains": {"contains": "LINE 42 "},
        }
        waits: dict[str, list[float]] = {kind: [] for kind in kinds}
        rows: dict[str, int] = {}
        async with server.connect() as client:
            for number in range(400):
                kind = list(kinds)[number % len(kinds)]
                message = {"action": "getLogs", "timewindow": 10, **kinds[kind]}
                begun = time.perf_counter()
                await client.send(json.dumps(message))
                answer = json.loads(await client.recv())
                if number >= 20:
                    waits[kind].append(time.perf_counter() - begun)
                rows[kind] = len(answer["logs"])
    everything = [wait for each in waits.values() for wait in each]
    return {
        "entries": total,
        "fill_s": round(filled),
        "p50_ms": ms(percentile(everything, 50)),
        "p95_ms": ms(percentile(everything, 95)),
        **{f"p95_ms_{kind}": ms(percentile(each, 95)) for kind, each in waits.items()},
        "rows": rows,
    }


async def purge(settings: DatabaseSettings, args: argparse.Namespace) -> dict[str, Any]:
    """Purge 1 M expired entries of ten minutes while 100 connections upload one a second each."""
    total, window, rounds, head = 1_000_000, 600, 3, 100_000
    times, head_times, steps, calm, disturbed = [], [], [], [], []
    with Server(settings, timewindow=window, cleanup_interval=3600) as server:
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(server.connect()) for _ in range(100)]
            for _ in range(rounds):
                # Whole partitions of 60 s, the last of which has just expired.
                edge = (time.time() - window) // 60 * 60
                fill = {"since": edge - 600, "until": edge - 0.001, "senders": 100}
                await asyncio.to_thread(server.tell, do="fill", count=total, **fill)
                begin = time.perf_counter() + 0.2
                uploads = asyncio.gather(
                    *(
                        paced(client, begin + number / 100, 1.0, 10, f"addon-{number}")
                        for number, client in enumerate(clients)
                    )
                )
                await asyncio.sleep(7)
                started = time.perf_counter()
                done = await asyncio.to_thread(server.tell, do="purge")
                ended = time.perf_counter()
                times.append(done["took"])
                steps.append(done["longest_step"])
                for sent, wait in (pair for client in await uploads for pair in client):
                    if started - 0.05 <= sent <= ended + 1:
                        disturbed.append(wait)
                    elif begin + 1 <= sent < started - 0.2:
                        calm.append(wait)
                edge = (time.time() - window) // 60 * 60
                fill = {"since": edge, "until": time.time() - window, "senders": 100}
                await asyncio.to_thread(server.tell, do="fill", count=head, **fill)
                done = await asyncio.to_thread(server.tell, do="purge")
                head_times.append(done["took"])
                steps.append(done["longest_step"])
    return {
        "entries": total,
        "purge_s": round(percentile(times, 50), 3),
        "purge_max_s": round(max(times), 3),
        "head_entries": head,
        "head_s": round(percentile(head_times, 50), 3),
        "longest_step_ms": ms(max(steps)),
        "upload_p99_ms_before": ms(percentile(calm, 99)),
        "upload_p99_ms_during": ms(percentile(disturbed, 99)),
        "upload_max_ms_during": ms(max(disturbed)),
        "ratio": round(percentile(disturbed, 99) / percentile(calm, 99), 2),
        "uploads_during": len(disturbed),
    }


async def followers(settings: DatabaseSettings, args: argparse.Namespace) -> dict[str, Any]:
    """1000 followers of one sender that says 100 entries a second, one an upload."""
    count = 1000
    delays: list[float] = []
    dropped = 0
    with Server(settings, timewindow=3600) as server:
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(server.connect()) for _ in range(count)]
            for client in clients:
                await client.send(json.dumps({"action": "followLogs", "sender": "addon-1"}))
                assert json.loads(await client.recv())["status"] == "ok"

            async def follow(client: ClientConnection) -> None:
                nonlocal dropped
                async for text in client:
                    message = json.loads(text)
                    now = time.time()
                    dropped += message["dropped"]
                    delays.extend(now - each["time"] for each in message["logs"])

            readers = [asyncio.create_task(follow(client)) for client in clients]
            sender = await stack.enter_async_context(server.connect())
            cpu, begun = server.cpu_s(), time.perf_counter()
            sent = await paced(sender, begun, 0.01, args.seconds, "addon-1")
            cpu, took = server.cpu_s() - cpu, time.perf_counter() - begun
            deadline = time.perf_counter() + 5
            while len(delays) < count * len(sent) and time.perf_counter() < deadline:
                await asyncio.sleep(0.05)
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
    return {
        "entries": len(sent),
        "deliveries": len(delays),
        "missing": count * len(sent) - len(delays),
        "dropped": dropped,
        "p50_ms": ms(percentile(delays, 50)),
        "p99_ms": ms(percentile(delays, 99)),
        "server_cores": round(cpu / took, 2),
    }


BENCHMARKS: dict[str, Any] = {
    "throughput": throughput,
    "connections": connections,
    "query": query,
    "purge": purge,
    "followers": followers,
}

if __name__ == "__main__":
    sys.exit(main())
