"""A run of hours compressed: a million channels, ten million results, ten million log entries.

    benchmarks/run soak [--scale 0.01]

All five parts run in one daemon, with its spool and a PostgreSQL of its own. The work comes in
tenths; after each the daemon rests, and what it holds is sampled: memory that is in use, and that
is resident, with its highest mark in that tenth, descriptors, threads, and its files. It exits
with 1 where memory grew from the third tenth to the last by more than a bound, or descriptors,
threads or files did.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks import soak_load
from benchmarks.process import cpu_seconds, free_ports, raise_descriptors, resident_bytes
from benchmarks.soak_daemon import REPORT
from monitor.store import DatabaseSettings, open_store
from tests.cluster.conftest import write_kubeconfig
from tests.cluster.plays import DeploymentPlay
from tests.servers.daemon import ROOT, DaemonProcess
from tests.servers.kubernetes import KubernetesServer
from tests.servers.postgres import make_server
from tests.waiting import wait_for

__all__ = ["Sample", "main", "verdict"]

_CHANNELS, _RESULTS, _ENTRIES = 1_000_000, 10_000_000, 10_000_000
_TENTHS = 10
# The first tenths fill caches, pools and the allocator's arenas.
_WARM_TENTHS = 3
_GROWTH_BYTES = 12_000_000
# Of what is in use, which no allocator's ways can explain: a third of a byte for each result and
# entry of the whole.
_IN_USE_GROWTH_BYTES = 5_000_000
_FILES_GROWTH = 64_000_000
_KEEP_S = 5
_REST_SHARE = 0.25
_FILES = ("spool.db", "history.db")


@dataclass(frozen=True, slots=True)
class Sample:
    """What a daemon holds at rest after a part of the work; memory and files in bytes."""

    in_use: int
    resident: int
    peak: int
    descriptors: int
    threads: int
    files: int


def slope(values: Sequence[float]) -> float:
    """Return the least squares' slope of values at equal distances, for one distance."""
    middle_x, middle_y = (len(values) - 1) / 2, sum(values) / len(values)
    above = sum((x - middle_x) * (y - middle_y) for x, y in enumerate(values))
    return above / sum((x - middle_x) ** 2 for x in range(len(values)))


def verdict(samples: Sequence[Sample]) -> tuple[float, float, list[str]]:
    """Return how much resident memory, and that in use, grew after the warm-up; what is wrong."""
    warm = samples[_WARM_TENTHS - 1 :]
    growth = slope([sample.resident for sample in warm]) * (len(warm) - 1)
    problems = []
    kept = slope([sample.in_use for sample in warm]) * (len(warm) - 1)
    if kept > _IN_USE_GROWTH_BYTES:
        problems.append(
            f"{kept / 1e6:.1f} MB more in use, {_IN_USE_GROWTH_BYTES / 1e6:.0f} allowed"
        )
    if growth > _GROWTH_BYTES:
        problems.append(f"memory grew by {growth / 1e6:.1f} MB, {_GROWTH_BYTES / 1e6:.0f} allowed")
    if warm[-1].descriptors > warm[0].descriptors + 8:
        problems.append(f"descriptors: {warm[0].descriptors} -> {warm[-1].descriptors}")
    if warm[-1].threads > warm[0].threads + 2:
        problems.append(f"threads: {warm[0].threads} -> {warm[-1].threads}")
    if warm[-1].files > warm[0].files + _FILES_GROWTH:
        problems.append(f"files: {warm[0].files / 1e6:.0f} -> {warm[-1].files / 1e6:.0f} MB")
    return growth, kept, problems


class Soak:
    """The daemon with all parts on, and the way through its work."""

    def __init__(self, directory: Path, url: str, kubernetes: KubernetesServer) -> None:
        self.directory = directory
        self.url = url
        self.websocket, self.zeromq, self.api = free_ports(3)
        kubeconfig = write_kubeconfig(directory / "kubeconfig", kubernetes)
        self.since = time.time()
        mock = f"http://127.0.0.1:{self.api}/website_mock?status=200&delay=0&size=100"
        config: dict[str, Any] = {
            "logger": {"file": str(directory / "monitor.log"), "level": "info"},
            "websocket_uri": ["127.0.0.1", self.websocket],
            "zeromq_uri": ["127.0.0.1", self.zeromq],
            "relay": {"history_file": "history.db", "keep_finished": _KEEP_S},
            "database": {"url": url},
            # Jobs of its own, apart from those whose results come from elsewhere.
            "probes": {
                "jobs": [{"id": 100_000 + n, "url": mock, "interval": 1} for n in range(20)]
            },
            "aggregation": {"flush_interval": 1},
            "cluster": {"name": "soak", "kinds": ["Deployment"], "kubeconfig": str(kubeconfig)},
            "logs": {
                "timewindow": 30,
                "max_entries_per_second": 1_000_000,
                "max_bytes_per_second": 1_000_000_000,
            },
            "api": {
                "uri": ["127.0.0.1", self.api],
                "tokens_file": None,
                "website_mock": True,
            },
        }
        program = ("-m", "benchmarks.soak_daemon")
        environ = {"PYTHONPATH": str(ROOT)}
        self.daemon = DaemonProcess(
            directory, config, debug=False, program=program, environ=environ
        )
        try:
            wait_for(lambda: self.daemon.notices("READY"), "a daemon that is ready", limit_s=120)
        except BaseException:
            self.daemon.release()
            raise
        self.began = time.monotonic()

    def tenth(self, pool: ProcessPoolExecutor, number: int, scale: float) -> list[float]:
        """Put a tenth of the work through; return how long each load took, in s."""

        def share(whole: int) -> tuple[int, int]:
            size = round(whole * scale / _TENTHS)
            return number * size, size

        self.clear_peak()
        pid, spool = self.daemon.pid, str(self.directory / "spool.db")
        running = [
            pool.submit(
                soak_load.relay_channels, pid, (self.websocket, self.zeromq), *share(_CHANNELS)
            ),
            pool.submit(soak_load.results, spool, self.url, self.since, *share(_RESULTS)),
            pool.submit(soak_load.entries, self.api, *share(_ENTRIES)),
        ]
        return [future.result() for future in running]

    def clear_peak(self) -> None:
        """Reset the kernel's peak of resident memory."""
        Path(f"/proc/{self.daemon.pid}/clear_refs").write_text("5", encoding="ascii")

    def rest(self) -> None:
        """Wait until nothing is to be forgotten any more and the daemon has little to do."""
        time.sleep(_KEEP_S + 1)  # how long the last channels are kept
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            before = cpu_seconds(self.daemon.pid)
            time.sleep(1)
            if cpu_seconds(self.daemon.pid) - before < _REST_SHARE:
                return
        raise TimeoutError("the daemon does not come to rest")

    def sample(self) -> Sample:
        """Look at what the daemon holds."""
        pid = self.daemon.pid
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
        status = dict(line.split(":", 1) for line in lines)
        # First: to tell it needs memory itself.
        resident = resident_bytes(pid)
        return Sample(
            self.in_use(),
            resident,
            int(status["VmHWM"].split()[0]) * 1024,
            len(list(Path(f"/proc/{pid}/fd").iterdir())),
            int(status["Threads"]),
            sum(soak_load.sizes(self.directory, _FILES).values()),
        )

    def in_use(self) -> int:
        """Ask the daemon how many bytes are allocated."""
        report = self.directory / REPORT
        os.kill(self.daemon.pid, signal.SIGUSR1)
        found = wait_for(lambda: report.exists() and report.read_text(encoding="ascii"), "a report")
        report.unlink()
        return sum(json.loads(found))


async def migrate(url: str) -> None:
    store = open_store(DatabaseSettings(url=url))
    await store.migrate()
    await store.close()


def run(scale: float, directory: Path) -> int:
    raise_descriptors()
    server = make_server({"max_wal_size": "4GB", "fsync": "off"})
    kubernetes = KubernetesServer()
    samples: list[Sample] = []
    soak: Soak | None = None
    try:
        server.start()
        url = server.url(server.create_database())
        asyncio.run(migrate(url))
        for name in ("churn", "fraud"):
            for step in DeploymentPlay(name).create(f"models/{name}:1"):
                for write in step:
                    assert write.item is not None
                    kubernetes.write(write.plural, write.item)
        soak = Soak(directory, url, kubernetes)
        print(f"{'part':>5} {'s':>6} {'relay s':>8} {'results s':>10} {'logs s':>7}", end="")
        print(
            f" {'in use':>7} {'RSS MB':>7} {'peak MB':>8} {'fds':>4} {'threads':>8} {'files MB':>9}"
        )
        with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
            for number in range(_TENTHS):
                took = soak.tenth(pool, number, scale)
                soak.rest()
                samples.append(soak.sample())
                show(number, time.monotonic() - soak.began, took, samples[-1])
        growth, kept, problems = verdict(samples)
        problems += output_problems(soak.daemon)
    finally:
        if soak is not None:
            status = soak.daemon.stop() if soak.daemon.process.poll() is None else 1
            soak.daemon.release()
        kubernetes.stop()
        server.remove()
    if status != 0:
        problems.append(f"the daemon ended with status {status}")
    print(
        f"memory after the warm-up, by its slope: {growth / 1e6:+.1f} MB resident,"
        f" {kept / 1e6:+.1f} MB in use"
    )
    for problem in problems:
        print(f"NOT FLAT: {problem}")
    counts = [round(n * scale) for n in (_CHANNELS, _RESULTS, _ENTRIES)]
    print("{:,} channels, {:,} results, {:,} log entries".format(*counts))
    return 1 if problems else 0


def output_problems(daemon: DaemonProcess) -> list[str]:
    if "Traceback" in daemon.stderr:
        return ["a traceback: " + daemon.stderr[daemon.stderr.index("Traceback") :][:2000]]
    return []


def show(number: int, seconds: float, took: Sequence[float], sample: Sample) -> None:
    relay_s, results_s, logs_s = took
    print(
        f"{number + 1:>2}/10 {seconds:6.0f} {relay_s:8.1f} {results_s:10.1f} {logs_s:7.1f}"
        f" {sample.in_use / 1e6:8.1f} {sample.resident / 1e6:7.1f} {sample.peak / 1e6:8.1f}"
        f" {sample.descriptors:4} {sample.threads:8} {sample.files / 1e6:9.1f}",
        flush=True,
    )


def main() -> int:
    """Read the command line, run, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="of the whole, to try it out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="recodex-monitor-soak-") as name:
        return run(arguments.scale, Path(name))


if __name__ == "__main__":
    sys.exit(main())
