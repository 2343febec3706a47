"""All parts in one daemon: what the others' load does to the relay, the loop and the watchdog.

One daemon on core 0; everything else (Kafka, PostgreSQL, nginx, the Kubernetes API, the loads)
on core 1. Needs what the tests need for those, as root for the loads' priorities.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from benchmarks import cluster, probes
from benchmarks.aggregation import TOPIC, fill_topic, make_broker, migrate
from benchmarks.process import (
    LOAD_CORE,
    SERVER_CORE,
    cpu_seconds,
    free_ports,
    pinned,
    raise_descriptors,
    resident_bytes,
)
from tests.cluster.conftest import write_kubeconfig
from tests.servers.kafka import Kafka
from tests.servers.postgres import PostgresServer, make_server

HERE = Path(__file__).parent
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# As in the unit: WATCHDOG=1 is due every third of it, and systemd acts when all of it is over.
WATCHDOG_S = 30.0
MODELS = 50
SETTLE_S = 5.0


@dataclass
class Site:
    """The addresses of everything that a daemon uses."""

    directory: Path
    page: str
    broker: Kafka
    postgres: PostgresServer
    database: str
    kubernetes: cluster.Server

    def config(self, ports: Sequence[int], *, topic: str, checks: int) -> Path:
        """Write the config of a daemon with all parts on."""
        websocket, zeromq, api = ports
        kubeconfig = write_kubeconfig(
            self.directory / "kubeconfig",
            cluster.Url(self.kubernetes.url),
        )
        jobs = probes.jobs(checks, self.page, interval=1)
        config = {
            "websocket_uri": ["127.0.0.1", websocket],
            "zeromq_uri": ["127.0.0.1", zeromq],
            "logger": {"file": str(self.directory / "monitor.log")},
            "kafka": {"bootstrap_servers": [self.broker.bootstrap]},
            "database": {"url": self.postgres.url(self.database)},
            "probes": {"topic": topic, "jobs": jobs},
            "aggregation": {"topic": topic},
            "cluster": {"kubeconfig": str(kubeconfig), "kinds": ["Deployment"]},
            "logs": {"timewindow": 60},
            "api": {"uri": ["127.0.0.1", api], "tokens_file": None},
        }
        path = self.directory / "config.yml"
        path.write_text(json.dumps(config), encoding="utf-8")
        return path


@dataclass
class Running:
    """A daemon under measurement."""

    pid: int
    ports: Sequence[int]
    report: Path
    beats: list[float] = field(default_factory=list)

    def tell(self) -> dict[str, Any]:
        """Have it report on its loop since the last time."""
        self.report.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR1)
        until = time.monotonic() + 10
        while not self.report.exists():
            assert time.monotonic() < until, "the loop is stuck"
            time.sleep(0.01)
        found: dict[str, Any] = json.loads(self.report.read_text())
        return found

    def metric(self, name: str) -> float:
        """Return a metric, summed over its labels."""
        text = requests.get(f"http://127.0.0.1:{self.ports[2]}/metrics", timeout=10).text
        found = re.findall(rf"^recodex_monitor_{name}(?:{{.*}})? (\S+)$", text, re.M)
        return sum(map(float, found))

    def cpu_by_thread(self) -> dict[int, float]:
        """Return CPU seconds by thread id."""
        spent = {}
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(OSError):
                fields = (task / "stat").read_text().rpartition(")")[2].split()
                spent[int(task.name)] = (int(fields[11]) + int(fields[12])) / TICKS_PER_S
        return spent


@contextlib.contextmanager
def daemon(site: Site, *, topic: str, checks: int) -> Iterator[Running]:
    """Run one on core 0, being its service manager."""
    import socket

    ports = free_ports(3)
    config = site.config(ports, topic=topic, checks=checks)
    report = site.directory / "report.json"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        address = site.directory / "notify"
        address.unlink(missing_ok=True)
        notify.bind(str(address))
        command = [sys.executable, "-m", "benchmarks.together_daemon", str(config), str(report)]
        with (site.directory / "output").open("ab") as output:
            process = subprocess.Popen(
                pinned(SERVER_CORE, command),
                env={
                    **os.environ,
                    "STATE_DIRECTORY": str(site.directory),
                    "NOTIFY_SOCKET": str(address),
                    "WATCHDOG_USEC": str(round(WATCHDOG_S * 1e6)),
                },
                stdout=output,
                stderr=output,
            )
        try:
            running = Running(process.pid, ports, report)
            ready = threading.Event()
            listener = threading.Thread(
                target=listen, args=(notify, running.beats, ready), daemon=True
            )
            listener.start()
            if not ready.wait(30):
                raise SystemExit((site.directory / "output").read_text()[-2000:])
            yield running
            assert process.poll() is None, "the daemon ended"
        finally:
            process.terminate()
            process.wait(20)
            notify.shutdown(socket.SHUT_RD)


def listen(notify: Any, beats: list[float], ready: threading.Event) -> None:
    """Take what the daemon tells its service manager, and when."""
    with contextlib.suppress(OSError):
        while said := notify.recv(8192):
            lines = said.split(b"\n")
            if b"READY=1" in lines:
                ready.set()
            if b"WATCHDOG=1" in lines:
                beats.append(time.monotonic())


def load_command(*command: str, first: bool = False) -> list[str]:
    """Return a command for the loads' core; what measures goes ``first`` there."""
    # What it measures must be the daemon's delay and not its own.
    priority = ["chrt", "--fifo", "1"] if first and os.geteuid() == 0 else []
    return pinned(LOAD_CORE, [*priority, *command])


def relay(running: Running, seconds: float) -> dict[str, float]:
    """Measure the relay: 1000 messages/s over 100 channels."""
    websocket, zeromq, _ = running.ports
    done = subprocess.run(
        load_command(
            *(sys.executable, str(HERE / "relay_loads.py"), "beside", "--pid", str(running.pid)),
            *("--websocket-port", str(websocket), "--publish-port", str(zeromq)),
            *("--seconds", str(seconds)),
            first=True,
        ),
        stdout=subprocess.PIPE,
        check=True,
        timeout=seconds + 60,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def show_relay(name: str, found: dict[str, float]) -> None:
    print(
        f"relay {name}: p50 {found['p50_s'] * 1e3:.2f} ms, p99 {found['p99_s'] * 1e3:.2f} ms,"
        f" max {found['max_s'] * 1e3:.1f} ms at"
        f" {found['deliveries'] / found['wall_s']:.0f} messages/s",
        flush=True,
    )


def show_loop(running: Running, told: dict[str, list[float]], since: float) -> None:
    ordered, pauses = sorted(told["late"]), told["pauses"] or [0.0]
    beats = [at for at in running.beats if at >= since]
    longest = max((b - a for a, b in itertools.pairwise(beats)), default=0.0)
    print(
        f"  loop late: p50 {ordered[len(ordered) // 2] * 1e3:.2f} ms,"
        f" p99 {ordered[len(ordered) * 99 // 100] * 1e3:.2f} ms, max {ordered[-1] * 1e3:.1f} ms;"
        f" {len(pauses)} collections of garbage, {max(pauses) * 1e3:.0f} ms at most;"
        f" longest from WATCHDOG=1 to the next {longest:.2f} s of {WATCHDOG_S:.0f} s",
        flush=True,
    )


def consumed(site: Site) -> int:
    """Return how many messages the aggregation has written."""
    ((count,),) = site.postgres.execute(
        "SELECT coalesce(sum(next_offset), 0) FROM website_availability.consumed_offset"
        f" WHERE topic = '{TOPIC}'",
        site.database,
    )
    return int(count)


def together(site: Site, options: argparse.Namespace) -> None:
    """Everything at once."""
    with daemon(site, topic=TOPIC, checks=options.checks) as running:
        _, _, api = running.ports
        seconds = options.seconds
        uploads = subprocess.Popen(
            load_command(
                *(sys.executable, str(HERE / "together_logs.py"), f"ws://127.0.0.1:{api}/ws"),
                *(str(options.entries), "20", str(SETTLE_S + seconds + 3)),
            ),
            stdout=subprocess.PIPE,
        )
        try:
            time.sleep(SETTLE_S)
            models = threading.Thread(target=roll_out, args=(site, seconds), daemon=True)
            models.start()
            names = dict(running.tell()["threads"])
            at = [time.monotonic()]
            counts = [count(site, running)]
            threads = [running.cpu_by_thread()]
            spent = [cpu_seconds(running.pid)]
            loads = [load_cpu()]
            others = [others_cpu()]
            found = relay(running, seconds)
            at.append(time.monotonic())
            spent.append(cpu_seconds(running.pid))
            loads.append(load_cpu())
            others.append(others_cpu())
            threads.append(running.cpu_by_thread())
            counts.append(count(site, running))
            told = running.tell()
            names.update(told["threads"])
            models.join()
            logs = json.loads(uploads.communicate(timeout=60)[0])
        finally:
            uploads.kill()
            uploads.wait()
        took = at[1] - at[0]
        rates = {name: (counts[1][name] - counts[0][name]) / took for name in counts[0]}
        show_relay("together", found)
        show_loop(running, told, at[0])
        print(
            "  "
            + ", ".join(f"{name} {rate:.0f}/s" for name, rate in rates.items())
            + f"; uploads answered p50 {logs['p50_s'] * 1e3:.0f} ms,"
            f" p99 {logs['p99_s'] * 1e3:.0f} ms, max {logs['max_s'] * 1e3:.0f} ms"
        )
        backlog = options.backlog - counts[1]["results aggregated"]
        print(f"  backlog left: {backlog:.0f} results" + ("" if backlog > 0 else " (too few!)"))
        show_threads(names, threads, took)
        print(
            f"  in all {(spent[1] - spent[0]) / took:.0%} of the core,"
            f" {resident_bytes(running.pid) / 1e6:.0f} MB resident",
            flush=True,
        )
        print(
            f"  the loads' core is busy for {(loads[1] - loads[0]) / took:.0%}; other processes"
            f" took {(others[1] - others[0]) / took:.0%} of a core meanwhile",
            flush=True,
        )


def load_cpu() -> float:
    """Return the s that the loads' core was busy."""
    (line,) = re.findall(rf"^cpu{LOAD_CORE} (.*)$", Path("/proc/stat").read_text(), re.M)
    user, nice, system, _, _, *interrupts = map(int, line.split())
    return (user + nice + system + sum(interrupts[:2])) / TICKS_PER_S


def others_cpu() -> float:
    """Return the CPU s of all processes that do not descend from this one."""
    total, ours = 0.0, os.times()
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("cpu "):
            user, nice, system = map(int, line.split()[1:4])
            total = (user + nice + system) / TICKS_PER_S
    parents, spent = {}, {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            parents[int(process.name)] = int(fields[1])
            spent[int(process.name)] = sum(map(int, fields[11:15])) / TICKS_PER_S

    def is_ours(process: int) -> bool:
        while process := parents.get(process, 0):
            if process == os.getpid():
                return True
        return False

    children = sum(cpu for process, cpu in spent.items() if is_ours(process))
    return total - children - ours.user - ours.system - ours.children_user - ours.children_system


def count(site: Site, running: Running) -> dict[str, float]:
    return {
        "results aggregated": consumed(site),
        "checks": running.metric("probe_results_total"),
        "log entries": running.metric("log_entries_total"),
        "model events": running.metric("model_updates_total"),
    }


def roll_out(site: Site, seconds: float) -> None:
    """Change a model's image each second."""
    for number in range(int(seconds)):
        site.kubernetes.ask("upgrade", number % MODELS)
        time.sleep(1)


def show_threads(names: dict[str, str], threads: Sequence[dict[int, float]], took: float) -> None:
    """Print each kind of thread's share of the core."""
    shares: dict[str, float] = {}
    for thread, spent in threads[1].items():
        name = names.get(str(thread), "libraries' own")
        name = re.sub(r"[-_]\d+$", "", name)
        share = (spent - threads[0].get(thread, 0.0)) / took
        shares[name] = shares.get(name, 0.0) + share
    parts = sorted(shares.items(), key=lambda item: -item[1])
    text = ", ".join(f"{name} {share:.0%}" for name, share in parts if share >= 0.005)
    print(f"  CPU by thread: {text}")


@contextlib.contextmanager
def site() -> Iterator[Site]:
    """Start every server on core 1."""
    raise_descriptors()
    os.sched_setaffinity(0, {LOAD_CORE})
    with contextlib.ExitStack() as held:
        directory = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="together-")))
        plain, _, _ = held.enter_context(probes.nginx(directory))
        postgres = make_server()
        held.callback(postgres.remove)
        postgres.start()
        broker = make_broker(directory / "kafka", core=LOAD_CORE)
        held.callback(broker.kill)
        broker.start()
        kubernetes = cluster.Server(MODELS, 2)
        held.callback(kubernetes.stop)
        database = postgres.create_database()
        asyncio.run(migrate({"url": postgres.url(database)}))
        yield Site(
            directory, f"http://127.0.0.1:{plain}/page", broker, postgres, database, kubernetes
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backlog", type=int, default=300_000, help="results in Kafka")
    parser.add_argument("--checks", type=int, default=1000, help="checks/s")
    parser.add_argument("--entries", type=int, default=10_000, help="log entries/s")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the measurement")
    options = parser.parse_args()
    if not shutil.which("chrt"):
        raise SystemExit("needs chrt (Debian package util-linux)")
    with site() as servers:
        print(
            f"the daemon alone on core {SERVER_CORE}; on core {LOAD_CORE}: Kafka, PostgreSQL,"
            f" nginx, the Kubernetes API ({MODELS} models, an upgrade a second), 20 connections"
            f" that upload {options.entries} entries/s, and the relay's load at 1000 messages/s"
            " over 100 channels, with real-time priority",
            flush=True,
        )
        with daemon(servers, topic="nothing", checks=0) as running:
            time.sleep(SETTLE_S)
            running.tell()
            since = time.monotonic()
            show_relay("alone", relay(running, 10))
            show_loop(running, running.tell(), since)
        os.sched_setaffinity(0, {SERVER_CORE})
        fill_topic(servers.broker, TOPIC, options.backlog, options.backlog // 1000)
        os.sched_setaffinity(0, {LOAD_CORE})
        together(servers, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
