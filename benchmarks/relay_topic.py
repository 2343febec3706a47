"""Two relays of one topic of Kafka: the time from a broker at one to a subscriber at the other.

1000 messages/s over 100 channels, one subscriber each. Both relays run on one core, Kafka and the
load on the other.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.process import LOAD_CORE, Server, free_ports, pinned, raise_descriptors, running
from tests.servers.kafka import Kafka, find_jars

__all__ = ["main"]

HERE = Path(__file__).parent
_AIM_MS = 50.0
_SERVES_S = 60.0


@contextlib.contextmanager
def relay(directory: Path, websocket: int, zeromq: int, broker: str) -> Iterator[Server]:
    """Run a relay of the topic, and give it once it serves."""
    directory.mkdir()
    config = directory / "config.yml"
    config.write_text(
        f'websocket_uri: ["127.0.0.1", {websocket}]\n'
        f'zeromq_uri: ["127.0.0.1", {zeromq}]\n'
        f"logger: {{file: {directory}/monitor.log, level: info}}\n"
        f'kafka: {{bootstrap_servers: ["{broker}"]}}\n'
        f"relay: {{topic: {directory.parent.name}}}\n",
        encoding="utf-8",
    )
    command = [sys.executable, str(HERE.parent / "main.py"), "-c", str(config)]
    with running(
        command, directory=directory, environment={"STATE_DIRECTORY": str(directory)}
    ) as server:
        deadline = time.monotonic() + _SERVES_S
        while not _serves(websocket):
            if time.monotonic() > deadline:
                raise TimeoutError("the relay does not serve")
            time.sleep(0.05)
        yield server


def _serves(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as probe:
        probe.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
        return b" 200 " in probe.recv(100)


def measured(root: Path, broker: str, seconds: float) -> dict[str, float]:
    """Return the result of one load, with two new relays and a new topic."""
    first_websocket, first_zeromq, websocket, zeromq = free_ports(4)
    with (
        tempfile.TemporaryDirectory(prefix="relay-topic-", dir=root) as name,
        relay(Path(name) / "first", first_websocket, first_zeromq, broker),
        relay(Path(name) / "second", websocket, zeromq, broker) as second,
    ):
        command = [
            *(sys.executable, str(HERE / "relay_loads.py"), "beside"),
            *("--pid", str(second.pid), "--seconds", str(seconds)),
            *("--websocket-port", str(websocket), "--publish-port", str(first_zeromq)),
        ]
        done = subprocess.run(
            pinned(LOAD_CORE, command), stdout=subprocess.PIPE, check=False, timeout=300
        )
        if done.returncode:
            raise SystemExit("the load failed")
        result: dict[str, float] = json.loads(done.stdout)
        return result


def main() -> int:
    """Measure, print, and return 1 if the aim is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0)
    arguments = parser.parse_args()
    raise_descriptors()

    def program(name: str, **_: object) -> str:
        return shutil.which(name) or name

    results = []
    with tempfile.TemporaryDirectory(prefix="relay-topic-") as name:
        root = Path(name)
        broker = Kafka(program("java"), find_jars(program), root / "kafka", core=LOAD_CORE)
        broker.start()
        try:
            # Kafka is slow until it has compiled itself.
            measured(root, broker.bootstrap, arguments.seconds)
            for turn in range(arguments.rounds):
                results.append(measured(root, broker.bootstrap, arguments.seconds))
                _show(f"{turn + 1}/{arguments.rounds}", results[-1:])
        finally:
            broker.kill()
    _show("median", results)
    return 0 if statistics.median(each["p99_s"] for each in results) * 1e3 <= _AIM_MS else 1


def _show(title: str, results: list[dict[str, float]]) -> None:
    keys = ("p50_s", "p99_s", "max_s")
    p50, p99, most = (statistics.median(each[key] for each in results) * 1e3 for key in keys)
    print(
        f"{title:8} p50 {p50:5.1f} ms, p99 {p99:5.1f} ms (aim: {_AIM_MS:.0f}), most {most:5.1f} ms",
        flush=True,
    )


if __name__ == "__main__":
    raise SystemExit(main())
