"""What the API and the live page take: of the client's time, and of the daemon's core.

    python -m benchmarks.web api [--seconds S]
    python -m benchmarks.web page [--seconds S]

``api``: a daemon checks 1000 jobs a second and aggregates them; GET /job with all 1000 jobs is
asked for 100 times a second, on a schedule that never waits (a late answer makes no later
request late), and with it GET /healthz, the cheapest answer that there is, and GET /metrics.
``page``: a daemon with 1000 jobs of 60 s; Chromium opens the list of sites until it can be
used, and then 20 pages stay open. Each prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from benchmarks.process import LOAD_CORE, SERVER_CORE, cpu_seconds
from tests.ports import free_port
from tests.servers.daemon import DaemonProcess

JOBS = 1000
REQUESTS_PER_S = 100
CONNECTIONS = 16
PAGES = 20
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["api", "page"], nargs="?", default="api")
    parser.add_argument("--seconds", type=float, default=20)
    args = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    with target() as port:
        figures = api(port, args.seconds) if args.what == "api" else page(port, args.seconds)
    print(json.dumps({"benchmark": f"web {args.what}", "jobs": JOBS, **figures}))


@contextlib.contextmanager
def target() -> Iterator[int]:
    """A site that answers at once, in a process of its own."""
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(port,), daemon=True)
    process.start()
    try:
        yield port
    finally:
        process.terminate()
        process.join()


def serve(port: int) -> None:
    class Site(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(ANSWER)
            self.transport.close()

    async def forever() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Site, "127.0.0.1", port, backlog=4096)
        await server.serve_forever()

    asyncio.run(forever())


@contextlib.contextmanager
def daemon(target_port: int, interval: float) -> Iterator[tuple[DaemonProcess, str]]:
    port = free_port()
    jobs = [
        {
            "id": number,
            "name": f"site {number}",
            "url": f"http://127.0.0.1:{target_port}/site/{number}",
            "interval": interval,
            "timeout": 5,
        }
        for number in range(1, JOBS + 1)
    ]
    config = {
        "relay": False,
        "probes": {"jobs": jobs},
        "aggregation": {},
        "logger": {"level": "warning", "file": None},
        "api": {"uri": ["127.0.0.1", port], "tokens_file": None},
    }
    with tempfile.TemporaryDirectory(prefix="recodex-monitor-bench-") as folder:
        config["logger"] = {"level": "warning", "file": f"{folder}/monitor.log"}
        running = DaemonProcess(Path(folder), config, debug=False)
        os.sched_setaffinity(running.pid, {SERVER_CORE})
        try:
            running.wait_ready()
            # Threads that were there already keep their old affinity.
            for thread in Path(f"/proc/{running.pid}/task").iterdir():
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread.name), {SERVER_CORE})
            url = f"http://127.0.0.1:{port}"
            wait_until_checked(url)
            yield running, url
            running.stop()
        finally:
            running.release()


def wait_until_checked(url: str) -> None:
    """Wait until every job has a result, for at most 90 s."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        items = requests.get(f"{url}/job?limit=10000", timeout=10).json()["items"]
        if len(items) == JOBS and all(item["last"] for item in items):
            return
        time.sleep(0.5)
    raise TimeoutError("not every job was checked")


def api(target_port: int, seconds: float) -> dict[str, Any]:
    with daemon(target_port, 1.0) as (running, url):
        figures: dict[str, Any] = {}
        before, at = results(url), time.monotonic()
        for name, path in (("healthz", "/healthz"), ("job", "/job")):
            cpu = cpu_seconds(running.pid)
            latencies, size = asyncio.run(load(url, path, seconds))
            figures |= {
                f"{name}_p50_ms": ms(latencies, 0.5),
                f"{name}_p99_ms": ms(latencies, 0.99),
                f"{name}_bytes": size,
                f"{name}_daemon_core": round((cpu_seconds(running.pid) - cpu) / seconds, 2),
            }
        figures["checks_per_s"] = round((results(url) - before) / (time.monotonic() - at))
        latencies = []
        session = requests.Session()
        for _ in range(200):
            begun = time.perf_counter()
            session.get(f"{url}/metrics", timeout=10).raise_for_status()
            latencies.append(time.perf_counter() - begun)
        figures |= {"metrics_p50_ms": ms(latencies, 0.5), "metrics_p99_ms": ms(latencies, 0.99)}
        return figures


def results(url: str) -> float:
    text = requests.get(f"{url}/metrics", timeout=10).text
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith("recodex_monitor_probe_results_total{")
    )


async def load(url: str, path: str, seconds: float) -> tuple[list[float], int]:
    """Ask on schedule; return how long after its scheduled time each answer was whole."""
    host, port = url.removeprefix("http://").split(":")
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()
    count = int(seconds * REQUESTS_PER_S)
    numbers = iter(range(count))
    latencies: list[float] = []
    size = 0
    begun = time.perf_counter() + 0.2

    async def client() -> None:
        nonlocal size
        reader, writer = await asyncio.open_connection(host, int(port), limit=2**20)
        for number in numbers:
            due = begun + number / REQUESTS_PER_S
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head[:80]
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            size = len(await reader.readexactly(length))
            latencies.append(time.perf_counter() - due)
        writer.close()

    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return latencies, size


def page(target_port: int, seconds: float) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or shutil.which("google-chrome")
    with daemon(target_port, 60.0) as (running, url), sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-gpu"]
        )
        interactive = []
        for _ in range(5):
            context = chromium.new_context()
            tab = context.new_page()
            tab.goto(f"{url}/#/sites", wait_until="commit")
            # All sites are listed, and the page has had the time to take a click.
            interactive.append(
                tab.evaluate(
                    """() => new Promise(resolve => {
                        const look = () => document.querySelectorAll('.sites li').length === 1000
                            ? requestIdleCallback(() => resolve(performance.now()))
                            : setTimeout(look, 5);
                        look();
                    })"""
                )
                / 1000
            )
            context.close()
        idle = share(running, seconds)
        tabs = [chromium.new_page() for _ in range(PAGES)]
        for tab in tabs:
            tab.goto(f"{url}/#/sites")
            # A window behind others draws no bars; what it is sent is the same.
            tab.wait_for_selector(".sites li", timeout=120_000)
        time.sleep(2)
        busy = share(running, seconds)
        chromium.close()
    return {
        "interactive_s": [round(each, 2) for each in sorted(interactive)],
        "core_without_pages": round(idle, 4),
        f"core_with_{PAGES}_pages": round(busy, 4),
        "core_of_the_pages": round(busy - idle, 4),
    }


def share(running: DaemonProcess, seconds: float) -> float:
    before = cpu_seconds(running.pid)
    time.sleep(seconds)
    return (cpu_seconds(running.pid) - before) / seconds


def ms(latencies: list[float], fraction: float) -> float:
    ordered = sorted(latencies)
    return round(1000 * ordered[min(len(ordered) - 1, int(fraction * len(ordered)))], 2)


if __name__ == "__main__":
    main()
