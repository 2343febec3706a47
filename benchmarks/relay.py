"""The relay compared with a plain one and with nginx with nchan: CPU, latency, memory, start.

One server at a time runs on one core, the load on the other; every row alternates between
the servers, several rounds, and shows medians. See README.md for what each row is.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process import (
    LOAD_CORE,
    Server,
    free_ports,
    pinned,
    raise_descriptors,
    resident_bytes,
    running,
    settle,
)

__all__ = ["main"]

HERE = Path(__file__).parent
Result = dict[str, float]

NGINX_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
NGINX = """\
load_module {module};
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
worker_rlimit_nofile {descriptors};
events {{ worker_connections {descriptors}; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    nchan_shared_memory_size 512m;
    server {{
        nchan_message_buffer_length 100000;
        nchan_message_timeout 1h;
        nchan_subscriber_first_message oldest;
        listen 127.0.0.1:{websocket} backlog=4096;
        listen 127.0.0.1:{publish};
        location ~ ^/pub/(.+)$ {{ nchan_publisher; nchan_channel_id $1; }}
        location ~ ^/sub/(.+)$ {{ nchan_subscriber websocket; nchan_channel_id $1; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a server listens: for subscribers, and for what is published."""

    websocket: int
    publish: int


def config_of(directory: Path, ports: Ports, *, keep_finished: int = 300) -> Path:
    """Write a config file of the daemon, relay only; the plain form reads the same one."""
    path = directory / "config.yml"
    path.write_text(
        f'websocket_uri: ["127.0.0.1", {ports.websocket}]\n'
        f'zeromq_uri: ["127.0.0.1", {ports.publish}]\n'
        f"logger: {{file: {directory}/monitor.log, level: info}}\n"
        f"relay: {{max_clients: 12000, keep_finished: {keep_finished}}}\n",
        encoding="utf-8",
    )
    return path


@contextmanager
def daemon(directory: Path, ports: Ports) -> Iterator[Server]:
    """Run the daemon."""
    command = [sys.executable, str(HERE.parent / "main.py"), "-c", str(config_of(directory, ports))]
    with running(
        command, directory=directory, environment={"STATE_DIRECTORY": str(directory)}
    ) as server:
        yield server


@contextmanager
def baseline(directory: Path, ports: Ports, *options: str) -> Iterator[Server]:
    """Run the plain form."""
    program = str(HERE / "baseline_relay.py")
    command = [sys.executable, program, "-c", str(config_of(directory, ports)), *options]
    with running(command, directory=directory) as server:
        yield server


@contextmanager
def baseline_uvloop(directory: Path, ports: Ports) -> Iterator[Server]:
    """Run the plain form on uvloop."""
    with baseline(directory, ports, "--uvloop") as server:
        yield server


@contextmanager
def nchan(directory: Path, ports: Ports) -> Iterator[Server]:
    """Run nginx in one process, with its nchan module."""
    path = directory / "nginx.conf"
    path.write_text(
        NGINX.format(
            module=NGINX_MODULE,
            directory=directory,
            descriptors=raise_descriptors(),
            websocket=ports.websocket,
            publish=ports.publish,
        ),
        encoding="utf-8",
    )
    command = ["/usr/sbin/nginx", "-c", str(path), "-p", str(directory)]
    with running(command, directory=directory, port=ports.publish) as server:
        yield server


DAEMON, PLAIN, NCHAN = "recodex-monitor", "plain", "nchan"
SIDES = {DAEMON: daemon, PLAIN: baseline, "plain-uvloop": baseline_uvloop, NCHAN: nchan}


def fresh(server: Server) -> Result:
    """Return the start's time and memory; a server that has not said READY has no time."""
    settle(server.pid)
    return {"ready_s": server.ready_s, "resident_bytes": resident_bytes(server.pid)}


def under_load(
    side: str, load: str, server: Server, ports: Ports, *, compression: bool = True
) -> Result:
    """Put a load on the server, from a process on the other core; return its result."""
    command = [
        *(sys.executable, str(HERE / "relay_loads.py"), load),
        *("--pid", str(server.pid)),
        *("--websocket-port", str(ports.websocket), "--publish-port", str(ports.publish)),
        *(["--nchan"] if side == NCHAN else []),
        # nchan accepts the offer and compresses nothing.
        *(["--compression"] if compression and side != NCHAN else []),
    ]
    done = subprocess.run(
        pinned(LOAD_CORE, command), stdout=subprocess.PIPE, check=False, timeout=300
    )
    if done.returncode:
        raise SystemExit(f"load {load} on {side} failed")
    result: Result = json.loads(done.stdout)
    return result


def measured(side: str, load: str, *, compression: bool) -> Result:
    """Start one server, measure one load on it, stop it."""
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as name:
        ports = Ports(*free_ports(2))
        with SIDES[side](Path(name), ports) as server:
            if load == "fresh":
                return fresh(server)
            return under_load(side, load, server, ports, compression=compression)


def _per_100k(result: Result) -> float:
    return result["cpu_s"] / result["deliveries"] * 1e5


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a value of one load's result, and what is asked of it."""

    load: str
    measure: str
    value: Callable[[Result], float]
    asked: str


TITLES = {
    "jobs": "jobs: 1000 channels x 1 subscriber x 200 messages",
    "fan-out": "paced fan-out: 1 channel x 1000 subscribers x 100 messages/s",
    "replay": "replay: 2000 saved messages x 100 late subscribers",
    "steady": "1000 messages/s over 100 channels",
    "idle": "10,000 idle subscribers",
    "fresh": "a fresh daemon, relay only",
}
ROWS = [
    Row("jobs", "CPU s per 100k deliveries", _per_100k, "5.5 times less"),
    Row("fan-out", "CPU s per 100k deliveries", _per_100k, "3.5 times less"),
    Row("replay", "CPU s per 100k deliveries", _per_100k, "50 times less"),
    Row("steady", "CPU s per 100k deliveries", _per_100k, "1.7 times less"),
    Row("steady", "latency p50, ms", lambda r: r["p50_s"] * 1e3, ""),
    Row("steady", "latency p99, ms", lambda r: r["p99_s"] * 1e3, "not worse; under 1"),
    Row("idle", "resident KB a subscriber", lambda r: r["bytes_each"] / 1e3, "20 at most"),
    Row("fresh", "resident MB", lambda r: r["resident_bytes"] / 1e6, "45 at most"),
    Row("fresh", "s to READY", lambda r: r["ready_s"], "0.5 at most"),
]


def table(results: dict[str, dict[str, list[Result]]], sides: Sequence[str]) -> str:
    """Return the rows as a Markdown table: medians, and the plain form's over the daemon's.

    The last column is how busy the load was on its own core while the daemon worked.
    """
    lines = [
        f"| load | measure | {' | '.join(sides)} | plain / ours | aim | load busy |",
        f"|---|---|{'---|' * len(sides)}---|---|---|",
    ]
    for row in ROWS:
        of_side = results.get(row.load)
        if not of_side:
            continue
        medians = {
            side: statistics.median(map(row.value, of_side[side])) if of_side.get(side) else None
            for side in sides
        }
        ours, plain = medians.get(DAEMON), medians.get(PLAIN)
        ratio = f"{plain / ours:.1f}" if ours and plain else ""
        shares = [r["load_share"] for r in of_side.get(DAEMON, []) if "load_share" in r]
        counts = shares and row.load != "idle" and "latency" not in row.measure
        share = f"{statistics.median(shares):.0%}" if counts else ""
        values = [f"{value:.3g}" if value is not None else "" for value in medians.values()]
        lines.append(
            f"| {TITLES[row.load]} | {row.measure} | {' | '.join(values)} "
            f"| {ratio} | {row.asked} | {share} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Read the command line, measure, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--loads", nargs="+", choices=TITLES, default=list(TITLES))
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=[DAEMON, PLAIN, NCHAN])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--no-compression",
        action="store_true",
        help="subscribers offer no permessage-deflate, as no browser does",
    )
    parser.add_argument("--json", type=Path, help="also write every single result here")
    arguments = parser.parse_args()
    sides = arguments.sides
    if NCHAN in sides and not (NGINX_MODULE.exists() and shutil.which("nginx")):
        print("without nchan: Debian's nginx-light and libnginx-mod-nchan are not installed")
        sides = [side for side in sides if side != NCHAN]
    raise_descriptors()
    results: dict[str, dict[str, list[Result]]] = {}
    for load in arguments.loads:
        results[load] = {side: [] for side in sides}
        for turn in range(arguments.rounds):
            for side in sides:
                if load == "fresh" and side == NCHAN:
                    continue  # it tells nobody when it is ready
                started = time.perf_counter()
                results[load][side].append(
                    measured(side, load, compression=not arguments.no_compression)
                )
                took = time.perf_counter() - started
                print(f"{load} {turn + 1}/{arguments.rounds} {side}: {took:.1f} s", flush=True)
    print(table(results, sides))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
