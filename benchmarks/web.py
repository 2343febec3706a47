"""What the API and the live page take: of the client's time, and of the daemon's core.

    python -m benchmarks.web api [--seconds S]
    python -m benchmarks.web page [--seconds S]
    python -m benchmarks.web smooth [--seconds S]
    python -m benchmarks.web slow [--sites N]
    python -m benchmarks.web visit

``api``: a daemon checks 1000 jobs a second and aggregates them; GET /job with all 1000 jobs is
asked for 100 times a second, on a schedule that never waits (a late answer makes no later
request late), and with it GET /healthz, the cheapest answer that there is, and GET /metrics.
``page``: a daemon with 1000 jobs of 60 s; Chromium opens the list of sites until it can be
used, and then 20 pages stay open.
``smooth``: Chromium shows 1000 sites of which one goes up or down each second, then the log with
200 new lines a second: frames a second, and the tasks that took more than 50 ms.
``slow``: Chromium opens the list of sites over a link of 80 kB/s and 60 ms, or with other
``--sites`` than 1000 over loopback: to the first site, to all of them, and the heap then.
``visit``: Chromium opens each view of the demonstration for the first time: the bytes of all that
it loads until nothing is missing, files and data, as they are sent, without HTTP's headers.
Each prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import gzip
import itertools
import json
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import requests
from websockets.sync.client import connect

from benchmarks.process import LOAD_CORE, SERVER_CORE, cpu_seconds
from tests.ports import free_port
from tests.servers.daemon import DaemonProcess

if TYPE_CHECKING:
    from playwright.sync_api import Browser

JOBS = 1000
REQUESTS_PER_S = 100
CONNECTIONS = 16
PAGES = 20
LINES_PER_S = 200
_BINARY = 2
ANSWER = b"HTTP/1.1 %s\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
# Each 17th site is up in every other minute: of 1000 sites, one changes each second.
FLAPPING = 17
TURNS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    loads = ["api", "page", "smooth", "slow", "visit"]
    parser.add_argument("what", choices=loads, nargs="?", default="api")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--sites", type=int, default=JOBS)
    args = parser.parse_args()
    if args.what == "visit":
        print(json.dumps({"benchmark": "web visit", "bytes": visit()}))
        return
    os.sched_setaffinity(0, {LOAD_CORE})
    with target() as port:
        if args.what == "slow":
            figures = slow(port, args.sites)
        else:
            measure = {"api": api, "page": page, "smooth": smooth}[args.what]
            figures = measure(port, args.seconds)
    jobs = args.sites if args.what == "slow" else JOBS
    print(json.dumps({"benchmark": f"web {args.what}", "jobs": jobs, **figures}))


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
            ill = data.startswith(b"GET /flapping") and time.time() // 60 % 2
            self.transport.write(ANSWER % (b"503 Ill" if ill else b"200 OK"))
            self.transport.close()

    async def forever() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Site, "127.0.0.1", port, backlog=4096)
        await server.serve_forever()

    asyncio.run(forever())


@contextlib.contextmanager
def daemon(
    target_port: int, interval: float, count: int = JOBS, *, flapping: bool = False
) -> Iterator[tuple[DaemonProcess, str]]:
    port = free_port()
    jobs = [
        {
            "id": number,
            "name": f"site {number}",
            "url": f"http://127.0.0.1:{target_port}/{folder_of(number, flapping)}/{number}",
            "interval": interval,
            "timeout": 5,
        }
        for number in range(1, count + 1)
    ]
    config = {
        "relay": False,
        "probes": {"jobs": jobs},
        "aggregation": {},
        "logs": {},
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
            wait_until_checked(url, count)
            yield running, url
            running.stop()
        finally:
            running.release()


def folder_of(number: int, flapping: bool) -> str:
    return "flapping" if flapping and number % FLAPPING == 0 else "site"


def wait_until_checked(url: str, count: int) -> None:
    """Wait until every job has a result, for some minutes at most."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        items = requests.get(f"{url}/job?limit=10000", timeout=10).json()["items"]
        if len(items) == count and all(item["last"] for item in items):
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
        for _ in range(TURNS):
            context = chromium.new_context()
            tab = context.new_page()
            tab.goto(f"{url}/#/sites", wait_until="commit")
            # All sites are listed, and the page has had the time to take a click.
            interactive.append(
                tab.evaluate(
                    """() => new Promise(resolve => {
                        // Only the rows in sight are elements; each knows how many there are.
                        const look = () => document.querySelector('.sites li[aria-setsize="1000"]')
                            ? requestIdleCallback(() => resolve(performance.now()))
                            : setTimeout(look, 5);
                        look();
                    })"""
                )
                / 1000
            )
            context.close()
        idle = median([share(running, seconds / TURNS) for _ in range(TURNS)])
        tabs = [chromium.new_page() for _ in range(PAGES)]
        for tab in tabs:
            tab.goto(f"{url}/#/sites")
            # A window behind others draws no bars; what it is sent is the same.
            tab.wait_for_selector(".sites li", timeout=120_000)
        time.sleep(2)
        busy = median([share(running, seconds / TURNS) for _ in range(TURNS)])
        chromium.close()
    return {
        "interactive_s": [round(each, 2) for each in sorted(interactive)],
        "core_without_pages": round(idle, 4),
        f"core_with_{PAGES}_pages": round(busy, 4),
        "core_of_the_pages": round(busy - idle, 4),
    }


SMOOTHNESS = """seconds => new Promise(resolve => {
    const tasks = [];
    new PerformanceObserver(list => list.getEntries().forEach(each => tasks.push(each.duration)))
        .observe({type: 'longtask'});
    let frames = 0;
    const begun = performance.now();
    const count = () => {
        frames += 1;
        const passed = performance.now() - begun;
        if (passed < seconds * 1000) requestAnimationFrame(count);
        else resolve({frames_per_s: Math.round(frames / passed * 10000) / 10,
            long_tasks: tasks.length, longest_task_ms: Math.round(Math.max(0, ...tasks)),
            rows: document.querySelectorAll('.virtual > li').length});
    };
    requestAnimationFrame(count);
})"""


def smooth(target_port: int, seconds: float) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or shutil.which("google-chrome")
    with daemon(target_port, 60.0, flapping=True) as (_, url), sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-gpu"]
        )
        tab = chromium.new_page(viewport={"width": 1280, "height": 860})
        tab.goto(f"{url}/#/sites")
        tab.wait_for_selector('.sites li[aria-setsize="1000"]', timeout=120_000)
        tab.wait_for_timeout(3000)

        def watched() -> dict[str, Any]:
            turns = [tab.evaluate(SMOOTHNESS, seconds / TURNS) for _ in range(TURNS)]
            # Its own CPU time, which other programs change little; apart, as a trace costs some.
            chromium.start_tracing(page=tab, categories=["toplevel"])
            tab.wait_for_timeout(seconds * 1000)
            tasks = main_thread_ms(chromium.stop_tracing())
            return {
                "frames_per_s": median([turn["frames_per_s"] for turn in turns]),
                "long_tasks": sum(turn["long_tasks"] for turn in turns),
                "longest_task_ms": max(turn["longest_task_ms"] for turn in turns),
                "rows": turns[-1]["rows"],
                "core_of_the_main_thread": round(sum(tasks) / 1000 / seconds, 3),
                "most_cpu_of_a_task_ms": round(max(tasks)),
            }

        sites = watched()
        stop = threading.Event()
        writer = threading.Thread(target=write_lines, args=(url, stop))
        writer.start()
        try:
            tab.goto(f"{url}/#/logs")
            tab.wait_for_selector(".log li", timeout=120_000)
            tab.wait_for_timeout(3000)
            logs = watched()
            number = tab.locator(".title p").inner_text()
        finally:
            stop.set()
            writer.join()
        chromium.close()
    return {"sites": sites, "logs": {**logs, "at_the_end": number}, "load": os.getloadavg()[0]}


def main_thread_ms(trace: bytes) -> list[float]:
    """Return the CPU time (ms) of each task of the page's main thread in a trace."""
    events = json.loads(trace)["traceEvents"]
    threads = [
        (each["pid"], each["tid"])
        for each in events
        if each.get("name") == "thread_name" and each["args"]["name"] == "CrRendererMain"
    ]
    return [
        each.get("tdur", 0) / 1000
        for each in events
        if each.get("ph") == "X"
        and each["name"] == "ThreadControllerImpl::RunTask"
        and (each["pid"], each["tid"]) in threads
    ]


# From navigation to the first site, and to all of them and an idle main thread.
ARRIVAL = """count => new Promise(resolve => {
    let first = null;
    const look = () => {
        const site = document.querySelector('.sites li .name b');
        if (first === null && site) first = performance.now();
        if (document.querySelector(`.sites li[aria-setsize="${count}"]`))
            requestIdleCallback(() => resolve([first, performance.now()]));
        else setTimeout(look, 5);
    };
    look();
})"""


def slow(target_port: int, count: int) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or shutil.which("google-chrome")
    with daemon(target_port, 60.0, count) as (_, url), sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-gpu"]
        )
        times, heap = [], []
        for _ in range(TURNS):
            context = chromium.new_context()
            tab = context.new_page()
            session = context.new_cdp_session(tab)
            if count == JOBS:
                session.send("Network.enable")
                link = {"latency": 60, "downloadThroughput": 80_000, "uploadThroughput": 80_000}
                session.send("Network.emulateNetworkConditions", {"offline": False, **link})
            tab.goto(f"{url}/#/sites", wait_until="commit")
            times.append(tab.evaluate(ARRIVAL, count))
            session.send("HeapProfiler.collectGarbage")
            heap.append(tab.evaluate("performance.memory.usedJSHeapSize"))
            context.close()
        chromium.close()
    return {
        "first_site_s": sorted(round(first / 1000, 2) for first, _ in times),
        "all_sites_s": sorted(round(whole / 1000, 2) for _, whole in times),
        "heap_mb": round(median(heap) / 1e6, 1),
        "load": os.getloadavg()[0],
    }


# Until no panel loads any more; later files, such as the other views, are not counted.
VISIT = """() => new Promise(resolve => {
    const look = () => {
        const wanted = document.querySelector('#view h1')
            && !document.querySelector('.picture[data-kind="loading"]:not([hidden])');
        if (!wanted) return setTimeout(look, 5);
        const files = performance.getEntriesByName('preload')[0]?.startTime ?? Infinity;
        const asked = [...performance.getEntriesByType('navigation'),
            ...performance.getEntriesByType('resource')]
            .filter(each => each.startTime < files || !each.name.includes('/static/'));
        resolve(Object.fromEntries(asked.map(each => [each.name, each.encodedBodySize])));
    };
    look();
})"""


def visit() -> dict[str, int]:
    from playwright.sync_api import sync_playwright

    from demo.__main__ import demonstration
    from demo.screenshots import VIEWS

    executable = shutil.which("chromium") or shutil.which("google-chrome")
    with demonstration() as running, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-gpu"]
        )
        time.sleep(20)
        addresses = {
            name: f"{running.url}/{fragment.partition('?')[0]}" for name, fragment in VIEWS.items()
        }
        loaded = dict(first_visits(chromium, addresses.values()))
        chromium.close()
    return {name: sum(loaded[address].values()) for name, address in addresses.items()}


def first_visits(
    chromium: Browser, addresses: Iterable[str]
) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield the bytes of all that a browser without a cache gets until no panel loads any more.

    By what it was: an address, or a kind of message. An update in the meantime, because a site
    was checked, counts once; HTTP's headers do not count.
    """
    context = chromium.new_context()
    tab = context.new_page()
    session = context.new_cdp_session(tab)
    session.send("Network.enable")
    session.send("Network.setCacheDisabled", {"cacheDisabled": True})
    messages: dict[str, int] = {}

    def received(event: dict[str, Any]) -> None:
        text, opcode = event["response"]["payloadData"], event["response"]["opcode"]
        data = base64.b64decode(text) if opcode == _BINARY else text.encode()
        message = json.loads(gzip.decompress(data) if opcode == _BINARY else data)
        messages.setdefault(f"{message.get('type')} {message.get('left', '')}", len(data))

    session.on("Network.webSocketFrameReceived", received)
    for address in addresses:
        tab.goto("about:blank")
        messages.clear()
        tab.goto(address, wait_until="commit")
        loaded: dict[str, int] = tab.evaluate(VISIT)
        yield address, loaded | messages
    context.close()


def write_lines(url: str, stop: threading.Event) -> None:
    """Upload 200 lines a second until ``stop``, twenty at a time."""
    levels = ("debug", "info", "info", "info", "warning", "error")
    due = time.monotonic()
    with connect(f"ws{url.removeprefix('http')}/ws") as socket:
        for number in itertools.count():
            if stop.wait(max(0.0, due - time.monotonic())):
                return
            due += 20 / LINES_PER_S
            entries = [
                {
                    "level": levels[(number + each) % len(levels)],
                    "time": time.time(),
                    "sender": f"worker-{each % 5}",
                    "message": f"job {number}.{each} was taken from the queue " + "x" * (each * 7),
                }
                for each in range(20)
            ]
            socket.send(json.dumps({"action": "uploadLogs", "logs": entries}))
            socket.recv(timeout=60)


def share(running: DaemonProcess, seconds: float) -> float:
    before = cpu_seconds(running.pid)
    time.sleep(seconds)
    return (cpu_seconds(running.pid) - before) / seconds


def ms(latencies: list[float], fraction: float) -> float:
    ordered = sorted(latencies)
    return round(1000 * ordered[min(len(ordered) - 1, int(fraction * len(ordered)))], 2)


if __name__ == "__main__":
    main()
