"""Alerts: from a failed result to the receiver, the cost of judging, and 10,000 sites at once.

A daemon of its own judges results that this process publishes, and sends to a webhook here. With
`--servers` it does so through Kafka and PostgreSQL, too, which need what the tests take for them.
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
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.example_result import example_result
from benchmarks.process import cpu_seconds, resident_bytes
from monitor import messages
from monitor.bus import Bus, BusSettings, create_bus

TOPIC = "website_availability"
ROOT = Path(__file__).resolve().parents[1]
RULE = {"name": "site down", "watch": "site", "failures": 1, "receivers": ["hook"]}


class Receiver:
    """A webhook that notes when it got which incidents."""

    def __init__(self) -> None:
        self.messages: list[tuple[float, str, list[float]]] = []
        """When it came, its event, and when each of its incidents was opened."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                opened = [each["opened_at"] for each in body["incidents"]]
                outer.messages.append((time.time(), body["event"], opened))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def daemon(folder: Path, config: dict[str, Any], *, judges: bool) -> Iterator[int]:
    """Run a daemon and yield its process id once it judges, or once it is ready."""
    log = folder / "monitor.log"
    log.unlink(missing_ok=True)
    file = folder / "config.yml"
    file.write_text(json.dumps({"relay": False, "logger": {"file": str(log)}, **config}))
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), "-c", str(file)],
        env={**os.environ, "STATE_DIRECTORY": str(folder)},
        stderr=subprocess.DEVNULL,
    )
    try:
        word = "judging partitions" if judges else "assigned partitions"
        deadline = time.monotonic() + 120
        while not (log.exists() and word in log.read_text()):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text() if log.exists() else "the daemon did not start")
            time.sleep(0.1)
        time.sleep(1.5)  # to have caught up
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def publish(bus: Bus, job_id: int, at: float, *, up: bool) -> None:
    # One in fifty is down.
    result = example_result(1 if up else 50, job=job_id, scheduled_at=at)
    bus.publish(TOPIC, key=str(job_id), value=messages.encode(result), headers=result.headers())


def alerts(url: str, group_wait: float) -> dict[str, Any]:
    return {
        "group_wait": group_wait,
        "receivers": [{"name": "hook", "webhook": url}],
        "rules": [RULE],
    }


def probes(count: int) -> dict[str, Any]:
    """Return sites that are down from the first check on, spread over some time."""
    interval = max(10.0, count * 0.3)
    site = {"kind": "tcp", "url": "tcp://127.0.0.1:9", "interval": interval, "timeout": 5}
    return {"jobs": [{"id": number, **site} for number in range(1, count + 1)]}


async def latency(receiver: Receiver, count: int) -> None:
    """Print how long it takes from a failed check to the receiver's acceptance.

    The checks of the first seconds are left out: the daemon is still starting.
    """
    begun = time.time()
    async with asyncio.timeout(120 + count):
        while sum(len(opened) for _, _, opened in receiver.messages) < count:
            await asyncio.sleep(0.1)
    took = sorted(
        at - opened_at
        for at, _, opened in receiver.messages
        for opened_at in opened
        if opened_at > begun
    )
    print(
        f"  {len(took)} failed checks: p50 {took[len(took) // 2]:.2f} s,"
        f" p99 {took[min(len(took) - 1, len(took) * 99 // 100)]:.2f} s"
    )


async def load(buses: Sequence[Bus], seconds: int, jobs: int) -> None:
    """Publish a result of each job a second on each bus, in turn."""
    begun = time.monotonic()
    for second in range(seconds):
        for number, bus in enumerate(buses):
            due = begun + second + number / len(buses)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            at = time.time()
            for job_id in range(1, jobs + 1):
                publish(bus, job_id, at + job_id / 1e6, up=True)
    for bus in buses:
        await bus.committed()


async def cost(folder: Path, seconds: int) -> None:
    """Print the CPU of judging, in addition to counting.

    Both daemons run at the same time, so that whatever else the machine does costs both the same.
    """
    receiver = Receiver()
    alone = {"aggregation": {"flush_interval": 10}}
    both = {**alone, "alerts": alerts(receiver.url, 5)}
    folders = [folder / "alone", folder / "both"]
    async with AsyncExitStack() as held:
        buses = []
        for each in folders:
            each.mkdir()
            buses.append(bus := create_bus(BusSettings(file=str(each / "spool.db"))))
            await bus.start()
            held.push_async_callback(bus.close)
        pids = [
            held.enter_context(daemon(each, config, judges="alerts" in config))
            for each, config in zip(folders, (alone, both), strict=True)
        ]
        before = [cpu_seconds(pid) for pid in pids]
        await load(buses, seconds, 1000)
        await asyncio.sleep(12)
        used = [cpu_seconds(pid) - then for pid, then in zip(pids, before, strict=True)]
    receiver.close()
    print(
        f"  1000 jobs, {1000 * seconds} results: {used[0]:.2f} s CPU alone,"
        f" {used[1]:.2f} s with alerts: {used[1] / used[0] - 1:+.0%}"
    )


async def storm(folder: Path, bus: Bus, sites: int) -> None:
    """Print what an outage of all sites at once takes."""
    receiver = Receiver()
    wait_s = 5.0
    with daemon(folder, {"alerts": alerts(receiver.url, wait_s)}, judges=True) as pid:
        await load([bus], 1, sites)
        await asyncio.sleep(3)
        before = resident_bytes(pid)
        at = time.time()
        for job_id in range(1, sites + 1):
            publish(bus, job_id, at + 1, up=False)
        await bus.committed()
        highest = before
        async with asyncio.timeout(120):
            while sum(len(opened) for _, _, opened in receiver.messages) < sites:
                highest = max(highest, resident_bytes(pid))
                await asyncio.sleep(0.05)
        took = receiver.messages[-1][0] - at
        print(
            f"  {sites} sites at once: {len(receiver.messages)} message,"
            f" {took:.1f} s (group_wait {wait_s:g} s),"
            f" memory +{(highest - before) / 2**20:.0f} MB"
        )
    receiver.close()


async def embedded(measures: Sequence[str], count: int, seconds: int, sites: int) -> None:
    print("embedded")
    for measure in measures:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            bus = create_bus(BusSettings(file=str(folder / "spool.db")))
            await bus.start()
            if measure == "latency":
                receiver = Receiver()
                config = {"probes": probes(count), "alerts": alerts(receiver.url, 0)}
                with daemon(folder, config, judges=True):
                    await latency(receiver, count)
                receiver.close()
            elif measure == "cost":
                await cost(folder, seconds)
            else:
                await storm(folder, bus, sites)
            await bus.close()


def configure(file: Path) -> None:
    """Create the tables."""
    subprocess.run(
        [sys.executable, str(ROOT / "main.py"), "configure-database", "-c", str(file)],
        check=True,
        stdout=subprocess.DEVNULL,
    )


async def with_servers(count: int) -> None:
    import shutil

    from tests.servers.kafka import Kafka, find_jars
    from tests.servers.postgres import make_server

    print("through Kafka and PostgreSQL")
    java = shutil.which("java")
    assert java is not None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kafka = Kafka(
            java,
            find_jars(lambda *names, package: shutil.which(names[0]) or package),
            folder / "kafka",
        )
        postgres = make_server()
        kafka.start()
        postgres.start()
        receiver = Receiver()
        try:
            servers = {"bootstrap_servers": [kafka.bootstrap]}
            config = {
                "kafka": servers,
                "database": {"url": postgres.url(postgres.create_database())},
                "probes": probes(count),
                "alerts": alerts(receiver.url, 0),
            }
            file = folder / "config.yml"
            file.write_text(json.dumps(config))
            await asyncio.to_thread(configure, file)
            with daemon(folder, config, judges=True):
                await latency(receiver, count)
        finally:
            receiver.close()
            postgres.remove()
            kafka.kill()


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks/run alerts", description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="results whose way is measured")
    parser.add_argument("--seconds", type=int, default=20, help="of 1000 results each, for the CPU")
    parser.add_argument("--sites", type=int, default=10_000, help="that go down at once")
    measures = ("latency", "cost", "storm")
    parser.add_argument("measure", nargs="*", default=measures, help=f"of {', '.join(measures)}")
    parser.add_argument("--servers", action="store_true", help="also through Kafka and PostgreSQL")
    args = parser.parse_args()
    asyncio.run(embedded(args.measure, args.count, args.seconds, args.sites))
    if args.servers and "latency" in args.measure:
        asyncio.run(with_servers(args.count))
    return 0
