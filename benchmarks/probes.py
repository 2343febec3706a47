"""Probes: CPU a check compared with prometheus-blackbox-exporter, memory, 10,000 jobs, and Kafka.

The kinds that are compared are http, https (a full handshake each), tcp, dns and ping.

Subject and peer run pinned to core 0, one after the other, and make as many checks a second; nginx,
what asks the peer, and Kafka run on core 1. Needs Debian's nginx-light and
prometheus-blackbox-exporter (and for ``kafka`` what the tests take for Kafka). ``python -m
benchmarks.probes`` runs all, in about seven minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import trustme

from benchmarks.process import resident_bytes

TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = 1024
SETTLE_S = 3.0
MEASURE_S = float(os.environ.get("MEASURE_S", "12"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_s(pid: int) -> float:
    """CPU seconds of a process with its threads, not of its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def started(command: Sequence[str], *, core: int, port: int = 0, **options: Any) -> Iterator[int]:
    """Run a program on one core until the end of the block; yield its process id."""
    with subprocess.Popen(
        ["taskset", "-c", str(core), *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **options,
    ) as process:
        try:
            until = time.monotonic() + 10
            while port and time.monotonic() < until:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield process.pid
        finally:
            process.terminate()


@contextmanager
def nginx(directory: Path) -> Iterator[tuple[int, int, str]]:
    """Serve 1 KB over HTTP and HTTPS; yield both ports and the authority's file."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(directory / "both.pem"))
    (directory / "page").write_bytes(b"x" * PAGE_BYTES)
    plain, secure = free_port(), free_port()
    paths = "".join(
        f"{name}_temp_path {directory}/tmp; "
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (directory / "nginx.conf").write_text(
        f"user root; daemon off; worker_processes 1; pid {directory}/nginx.pid;\n"
        "error_log /dev/null; worker_rlimit_nofile 20000; events { worker_connections 10000; }\n"
        f"http {{ access_log off; default_type text/html; {paths} ssl_session_cache off;"
        " ssl_session_tickets off;\n"
        f"server {{ listen 127.0.0.1:{plain} backlog=8192; listen 127.0.0.1:{secure} ssl"
        f" backlog=8192; ssl_certificate {directory}/both.pem;"
        f" ssl_certificate_key {directory}/both.pem; root {directory}; }} }}\n"
    )
    found = shutil.which("nginx") or "/usr/sbin/nginx"
    with started([found, "-c", str(directory / "nginx.conf")], core=1, port=plain):
        yield plain, secure, str(directory / "ca.pem")


@contextmanager
def daemon(directory: Path, config: dict[str, Any]) -> Iterator[int]:
    """Run the daemon on core 0 with its state in ``directory``."""
    directory.mkdir()
    (directory / "c.yml").write_text(
        json.dumps({"relay": False, "logger": {"file": str(directory / "log")}, **config})
    )
    command = [sys.executable, "-m", "monitor", "-c", str(directory / "c.yml")]
    with started(command, core=0, env={**os.environ, "STATE_DIRECTORY": str(directory)}) as pid:
        until = time.monotonic() + 60
        log = directory / "log"
        while not (log.exists() and " ready: " in log.read_text()):
            assert time.monotonic() < until, "the daemon does not start"
            time.sleep(0.05)
        yield pid


def jobs(count: int, url: str, *, interval: float, **fields: Any) -> list[dict[str, Any]]:
    return [{"id": i, "url": url, "interval": interval, **fields} for i in range(1, count + 1)]


def results(directory: Path, since: float, until: float) -> list[dict[str, Any]]:
    """Read from the spool the results checked in this time."""
    db = sqlite3.connect(directory / "spool.db")
    values = [json.loads(value) for (value,) in db.execute("SELECT value FROM message")]
    db.close()
    return [value for value in values if since <= value["checked_at"] < until]


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


def own_cost(root: Path, url: str, rate: int, **fields: Any) -> tuple[float, float, float]:
    """CPU s a check of ours, checks/s, and resident MB."""
    directory = root / f"own-{time.monotonic_ns()}"
    config = {"probes": {"jobs": jobs(rate, url, interval=1, **fields)}}
    with daemon(directory, config) as pid:
        time.sleep(SETTLE_S)
        began, before = time.time(), cpu_s(pid)
        time.sleep(MEASURE_S)
        ended, after = time.time(), cpu_s(pid)
        resident = resident_bytes(pid) / 2**20
        time.sleep(1)
    found = results(directory, began, ended)
    assert all(result["up"] for result in found), found[0]
    return (after - before) / len(found), len(found) / (ended - began), resident


def module(kind: str, ca_file: str) -> dict[str, Any]:
    """Return the module of prometheus-blackbox-exporter for a kind."""
    ip4 = {"preferred_ip_protocol": "ip4"}
    options: dict[str, Any] = {
        "http": {**ip4, "tls_config": {"ca_file": ca_file}},
        "tcp": ip4,
        "dns": {**ip4, "transport_protocol": "udp", "query_name": "example.org", "query_type": "A"},
        "icmp": ip4,
    }
    return {"prober": kind, "timeout": "10s", kind: options[kind]}


def peers_cost(
    root: Path, kind: str, target: str, ca_file: str, *, rate: int
) -> tuple[float, float]:
    """CPU s a check of prometheus-blackbox-exporter, and checks/s."""
    port = free_port()
    config = root / "blackbox.yml"
    config.write_text(json.dumps({"modules": {"module": module(kind, ca_file)}}))
    program = shutil.which("prometheus-blackbox-exporter")
    assert program, "install prometheus-blackbox-exporter"
    command = [
        program,
        f"--config.file={config}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    path = f"/probe?module=module&target={target}"
    with started(command, core=0, port=port, env={**os.environ, "GOMAXPROCS": "1"}) as pid:
        load(port, path, rate, SETTLE_S)
        before = cpu_s(pid)
        count = load(port, path, rate, MEASURE_S)
        after = cpu_s(pid)
    return (after - before) / count, count / MEASURE_S


def load(port: int, path: str, rate: int, seconds: float) -> int:
    """Ask ``rate`` times a second, and return how often it answered."""
    command = ["taskset", "-c", "1", sys.executable, "-m", "benchmarks.probes_asking"]
    given = [str(port), path, str(rate), str(seconds)]
    done = subprocess.run([*command, *given], stdout=subprocess.PIPE, check=True, timeout=120)
    return int(done.stdout)


def compare(
    root: Path,
    name: str,
    url: str,
    authority: str,
    *,
    rate: int,
    peer: tuple[str, str] | None = None,
    **fields: Any,
) -> None:
    """Compare a kind; ``peer`` is the prober and the target of the other, by default http."""
    ours, our_rate, resident = own_cost(root, url, rate, **fields)
    prober, target = peer or ("http", url)
    theirs, their_rate = peers_cost(root, prober, target, authority, rate=rate)
    print(
        f"{name}: {ours * 1e6:.0f} us of CPU a check at {our_rate:.0f}/s, {resident:.0f} MB;"
        f" blackbox_exporter {theirs * 1e6:.0f} us at {their_rate:.0f}/s;"
        f" {theirs / ours:.2f} times less",
        flush=True,
    )


@contextmanager
def name_server() -> Iterator[int]:
    """Answer every DNS query with one address, on core 1; yield the port."""
    port = free_port()
    with started([sys.executable, "-m", "benchmarks.probes_dns", str(port)], core=1):
        until = time.monotonic() + 10
        with socket.socket(type=socket.SOCK_DGRAM) as query:
            query.settimeout(0.1)
            while time.monotonic() < until:
                with suppress(OSError):
                    query.sendto(bytes(12), ("127.0.0.1", port))
                    query.recv(512)
                    break
        yield port


@contextmanager
def services() -> Iterator[tuple[int, int]]:
    """Serve WebSocket and gRPC on core 1; yield both ports."""
    websocket, rpc = free_port(), free_port()
    command = [sys.executable, "-m", "benchmarks.probes_services", str(websocket), str(rpc)]
    with started(command, core=1, port=websocket):
        yield websocket, rpc


def memory(root: Path, url: str, ca_file: str) -> None:
    """Print what the daemon holds while it makes 800 TLS handshakes a second."""
    ours, rate, resident = own_cost(root, url, 800, ca_file=ca_file)
    print(
        f"https at {rate:.0f}/s: {resident:.0f} MB resident, {ours * 1e6:.0f} us of CPU a check",
        flush=True,
    )


def capacity(root: Path, url: str, rate: int) -> None:
    directory = root / f"capacity-{rate}"
    config = {"probes": {"jobs": jobs(rate, url, interval=1), "concurrency": 1000}}
    with daemon(directory, config) as pid:
        time.sleep(SETTLE_S)
        began, before = time.time(), cpu_s(pid)
        time.sleep(MEASURE_S)
        ended, after = time.time(), cpu_s(pid)
        time.sleep(1.5)
    found = results(directory, began, ended)
    lags = [result["checked_at"] - result["scheduled_at"] for result in found]
    print(
        f"one core: {len(found) / (ended - began):.0f} checks/s of {rate} wanted, lag p50"
        f" {percentile(lags, 0.5) * 1000:.1f} ms, p99 {percentile(lags, 0.99) * 1000:.1f} ms,"
        f" {sum(result['missed'] for result in found)} missed,"
        f" {100 * (after - before) / (ended - began):.0f} % of the core",
        flush=True,
    )


def most_within(instants: Sequence[float], length_s: float) -> int:
    """Return how many instants there are at most in any stretch of ``length_s``."""
    found = sorted(instants)
    return max(bisect_right(found, start + length_s) - n for n, start in enumerate(found))


def of_all_kinds(
    count: int, web: tuple[int, int, str], dns: int, others: tuple[int, int]
) -> list[Any]:
    """Return jobs of all kinds in turn, http with and without TLS; no heartbeat comes."""
    (plain, secure, ca_file), (websocket, rpc) = web, others
    kinds: list[dict[str, Any]] = [
        {"url": f"http://127.0.0.1:{plain}/page"},
        {"url": f"https://127.0.0.1:{secure}/page", "ca_file": ca_file},
        {"kind": "tcp", "url": f"tcp://127.0.0.1:{plain}"},
        {"kind": "tls", "url": f"tls://127.0.0.1:{secure}", "ca_file": ca_file},
        {"kind": "dns", "url": f"dns://127.0.0.1:{dns}/example.org"},
        {"kind": "ping", "url": "ping://127.0.0.1"},
        {"kind": "websocket", "url": f"ws://127.0.0.1:{websocket}/"},
        {"kind": "grpc", "url": f"grpc://127.0.0.1:{rpc}"},
        {"kind": "heartbeat", "grace": 600},
    ]
    return [{"id": i, "interval": 60, **kinds[i % len(kinds)]} for i in range(1, count + 1)]


def many_jobs(root: Path, name: str, found_jobs: list[Any]) -> None:
    directory, count, interval = root / f"many-{name.replace(' ', '-')}", len(found_jobs), 60
    with daemon(directory, {"probes": {"jobs": found_jobs}}) as pid:
        began = time.time()
        time.sleep(interval + 3)
        status = Path(f"/proc/{pid}/status").read_text()
        ended = time.time()
        time.sleep(1)
    found = results(directory, began, ended)
    started_share = 100 * most_within([result["checked_at"] for result in found], 0.1) / count
    due_share = 100 * most_within([result["scheduled_at"] for result in found], 0.1) / count
    lags = [result["checked_at"] - result["scheduled_at"] for result in found]
    memory = {
        name: int(size) // 1024 for name, size in re.findall(r"(VmRSS|VmHWM):\s+(\d+)", status)
    }
    print(
        f"{count} jobs, {name}, every {interval} s: {len(found)} results,"
        f" {sum(result['up'] for result in found)} up, lag p99"
        f" {percentile(lags, 0.99) * 1000:.0f} ms, {memory['VmRSS']} MB resident"
        f" (peak {memory['VmHWM']} MB), at most {due_share:.2f} % of a cycle due in any 100 ms,"
        f" {started_share:.2f} % started",
        flush=True,
    )


def to_kafka(root: Path, count: int) -> None:
    """Publish results as fast as they are taken, until Kafka has acknowledged all."""
    from tests.servers.kafka import Kafka, find_jars

    java = shutil.which("java")
    assert java, "install default-jre-headless"
    broker = Kafka(
        java, find_jars(lambda name, **_: shutil.which(name) or name), root / "kafka", core=1
    )
    broker.start()
    try:
        environment = {**os.environ, "STATE_DIRECTORY": str(root)}
        command = [sys.executable, "-m", "benchmarks.probes_publisher"]
        subprocess.run(
            ["taskset", "-c", "0", *command, broker.bootstrap, str(count)],
            env=environment,
            check=True,
            timeout=120,
        )
    finally:
        broker.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = ("http", "https", "tcp", "dns", "ping")
    loads = (*kinds, "memory", "capacity", "jobs", "kinds", "kafka")
    parser.add_argument("load", nargs="*", default=loads, help=f"of {', '.join(loads)}")
    parser.add_argument("--rate", type=int, default=2700, help="checks/s wanted of one core")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        with nginx(root) as (plain, secure, ca_file):
            page, secure_page = f"http://127.0.0.1:{plain}/page", f"https://127.0.0.1:{secure}/page"
            if "http" in args.load:
                compare(root, "http", page, ca_file, rate=1000)
            if "https" in args.load:
                compare(root, "https", secure_page, ca_file, rate=500, ca_file=ca_file)
            if "tcp" in args.load:
                place = f"127.0.0.1:{plain}"
                peer = ("tcp", place)
                compare(root, "tcp", f"tcp://{place}", ca_file, rate=1000, peer=peer, kind="tcp")
            if "dns" in args.load:
                with name_server() as port:
                    url, there = f"dns://127.0.0.1:{port}/example.org", f"127.0.0.1:{port}"
                    peer = ("dns", there)
                    compare(root, "dns", url, ca_file, rate=1000, peer=peer, kind="dns")
            if "ping" in args.load:
                url, peer = "ping://127.0.0.1", ("icmp", "127.0.0.1")
                compare(root, "ping", url, ca_file, rate=1000, peer=peer, kind="ping")
            if "memory" in args.load:
                memory(root, secure_page, ca_file)
            if "capacity" in args.load:
                capacity(root, page, args.rate)
            if "jobs" in args.load:
                many_jobs(root, "http", jobs(10_000, page, interval=60))
            if "kinds" in args.load:
                with name_server() as port, services() as others:
                    found = of_all_kinds(10_000, (plain, secure, ca_file), port, others)
                    many_jobs(root, "all kinds in turn", found)
        if "kafka" in args.load:
            to_kafka(root, 100_000)


if __name__ == "__main__":
    main()
