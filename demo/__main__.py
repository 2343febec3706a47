"""``make demo``: the daemon with all its parts on, embedded, and with something to see.

It probes sites of its own (some of which fail now and then), is sent the progress of jobs and
the logs of a small fleet, and watches a Kubernetes API that plays rollouts of models. Alerts go
to a receiver that prints them. All of it stays on loopback and in one temporary folder, and ends
with Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml

from demo.fleet import Fleet
from demo.models import Models
from demo.past import write_past
from demo.progress import Progress
from demo.receiver import AlertReceiver
from demo.services import services
from demo.sites import Sites

_READY_S = 120.0


def main() -> int:
    """Run until interrupted."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--port", type=int, default=9000, help="of the page (0: a free one)")
    parser.add_argument("--seconds", type=float, default=None, help="end by itself after so long")
    args = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with demonstration(args.port) as running:
        print(_introduction(running), flush=True)
        stop.wait(args.seconds)
    return 0


@dataclass(frozen=True, slots=True)
class Demonstration:
    """Where what runs is: the page and API, the relay's two addresses, and the config's file."""

    url: str
    websocket: str
    zeromq: str
    config: Path


def _introduction(running: Demonstration) -> str:
    program = Path(sys.executable).with_name("recodex-monitor")
    return f"""
    The page is at {running.url}/
    The relay is at {running.websocket} and takes what brokers send at {running.zeromq}
    The config is {running.config}, so that in another terminal

        {program} follow demo -c {running.config}
        {program} play --channel demo -c {running.config}
        {program} topic website_availability -c {running.config}
        {program} logs --follow -c {running.config}

    find it. Alerts appear here. Ctrl-C ends it.
"""


@contextlib.contextmanager
def demonstration(port: int = 0) -> Iterator[Demonstration]:
    """Run all of it."""
    port = _free_port(port)
    relay_port, zeromq_port = _free_port(0), _free_port(0)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recodex-demo-")))
        sites = stack.enter_context(Sites())
        models = stack.enter_context(Models(folder))
        receiver = stack.enter_context(AlertReceiver())
        asyncio.run(write_past(folder, sites.jobs()))
        config = folder / "config.yml"
        config.write_text(
            yaml.safe_dump(
                {
                    "websocket_uri": ["127.0.0.1", relay_port],
                    "zeromq_uri": ["127.0.0.1", zeromq_port],
                    "logger": {"file": str(folder / "monitor.log"), "level": "info"},
                    # By their whole names, which commands find without STATE_DIRECTORY.
                    "bus": {"file": str(folder / "spool.db")},
                    "database": {"file": str(folder / "monitor.db")},
                    # So that they can be changed on the page.
                    "probes": {"source": "database"},
                    "aggregation": {"flush_interval": 1},
                    "cluster": models.settings(),
                    "logs": {"timewindow": 900},
                    "alerts": receiver.settings(),
                    "api": {
                        "uri": ["127.0.0.1", port],
                        "tokens_file": None,
                        "website_mock": True,
                        "status_page": {
                            "title": "Services of the faculty",
                            "match": {"tags": ["public"]},
                        },
                    },
                },
                sort_keys=False,
            )
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "monitor", "-c", str(config)],
            env={**os.environ, "STATE_DIRECTORY": str(folder)},
            stderr=subprocess.DEVNULL,
        )
        stack.callback(_end, process)
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(url, process, folder)
        stack.enter_context(Fleet(url))
        websocket = f"ws://127.0.0.1:{relay_port}/"
        stack.enter_context(services(folder, url, websocket))
        zeromq = f"tcp://127.0.0.1:{zeromq_port}"
        stack.enter_context(Progress(zeromq))
        models.play()
        yield Demonstration(url, websocket, zeromq, config)


def _free_port(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            log = folder / "monitor.log"
            sys.exit(log.read_text() if log.exists() else "the daemon ended at once")
        with contextlib.suppress(requests.RequestException):
            if requests.get(f"{url}/readyz", timeout=2).ok:
                return
        time.sleep(0.1)
    sys.exit("the daemon did not get ready")


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()


if __name__ == "__main__":
    sys.exit(main())
