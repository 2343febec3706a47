"""The relay compared with other servers and with a floor in C: CPU, latency, memory, start.

One server at a time runs on one core, the load on the other; every row alternates between
the servers, several rounds, and shows medians. See README.md for what each row is.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process import (
    LOAD_CORE,
    Server,
    free_ports,
    pinned,
    raise_descriptors,
    resident_bytes,
    settle,
)
from benchmarks.relay_dialects import DIALECTS
from benchmarks.relay_sides import CENTRIFUGO, DAEMON, FLOOR, NCHAN, PLAIN, SIDES, Ports

__all__ = ["main"]

HERE = Path(__file__).parent
COMPARED = (DAEMON, PLAIN, NCHAN, CENTRIFUGO, FLOOR)
Result = dict[str, float]


def fresh(server: Server) -> Result:
    """Return the start's time and memory; a server that has not said READY has no time."""
    settle(server.pid)
    return {"ready_s": server.ready_s, "resident_bytes": resident_bytes(server.pid)}


def under_load(
    side: str, load: str, server: Server, ports: Ports, *, compression: bool = True
) -> Result:
    """Put a load on the server, from a process on the other core; return its result."""
    dialect = SIDES[side].dialect
    command = [
        *(sys.executable, str(HERE / "relay_loads.py"), load),
        *("--pid", str(server.pid)),
        *("--websocket-port", str(ports.websocket), "--publish-port", str(ports.publish)),
        *("--dialect", dialect),
        *(["--compression"] if compression and DIALECTS[dialect].compresses else []),
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
        with SIDES[side].run(Path(name), ports) as server:
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
    "fan-out-300": "the same with 300 subscribers",
    "replay": "replay: 2000 saved messages x 100 late subscribers",
    "steady": "1000 messages/s over 100 channels",
    "idle": "10,000 idle subscribers",
    "fresh": "a fresh daemon, relay only",
}


def _ms(key: str) -> Callable[[Result], float]:
    return lambda result: result[key] * 1e3


ROWS = [
    Row("jobs", "CPU s per 100k deliveries", _per_100k, "5.5 times less; a third of Centrifugo's"),
    Row("jobs", "resident MB afterwards", lambda r: r["resident_bytes"] / 1e6, "70 at most"),
    Row("fan-out", "CPU s per 100k deliveries", _per_100k, "3.5 times less; 0.22 at most"),
    Row("fan-out", "latency p50, ms", _ms("p50_s"), "5 at most"),
    Row("fan-out", "latency p99, ms", _ms("p99_s"), "15 at most"),
    Row("fan-out-300", "CPU s per 100k deliveries", _per_100k, ""),
    Row("fan-out-300", "latency p50, ms", _ms("p50_s"), "2 at most"),
    Row("fan-out-300", "latency p99, ms", _ms("p99_s"), "5 at most"),
    Row("replay", "CPU s per 100k deliveries", _per_100k, "50 times less"),
    Row("steady", "CPU s per 100k deliveries", _per_100k, "4.5 at most; twice the floor's"),
    Row("steady", "latency p50, ms", _ms("p50_s"), "0.5 at most"),
    Row("steady", "latency p99, ms", _ms("p99_s"), "2 at most; not worse than plain"),
    Row("idle", "resident KB a subscriber", lambda r: r["bytes_each"] / 1e3, "20 at most"),
    Row("fresh", "resident MB", lambda r: r["resident_bytes"] / 1e6, "45 at most"),
    Row("fresh", "s to READY", lambda r: r["ready_s"], "0.5 at most"),
]


def table(results: dict[str, dict[str, list[Result]]], sides: Sequence[str]) -> str:
    """Return the rows as a Markdown table: medians, and what they are of each other.

    The last column is how busy the load was on its own core while the daemon worked.
    """
    lines = [
        f"| load | measure | {' | '.join(sides)} | plain / ours | ours / floor | aim | load busy |",
        f"|---|---|{'---|' * len(sides)}---|---|---|---|",
    ]
    for row in ROWS:
        of_side = results.get(row.load)
        if not of_side:
            continue
        medians = {
            side: statistics.median(map(row.value, of_side[side])) if of_side.get(side) else None
            for side in sides
        }
        ours, plain, floor = (medians.get(side) for side in (DAEMON, PLAIN, FLOOR))
        less = f"{plain / ours:.1f}" if ours and plain else ""
        times = f"{ours / floor:.1f}" if ours and floor else ""
        shares = [r["load_share"] for r in of_side.get(DAEMON, []) if "load_share" in r]
        counts = shares and row.measure.startswith("CPU")
        share = f"{statistics.median(shares):.0%}" if counts else ""
        values = [f"{value:.3g}" if value is not None else "" for value in medians.values()]
        lines.append(
            f"| {TITLES[row.load]} | {row.measure} | {' | '.join(values)} "
            f"| {less} | {times} | {row.asked} | {share} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Read the command line, measure, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--loads", nargs="+", choices=TITLES, default=list(TITLES))
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(COMPARED))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--no-compression",
        action="store_true",
        help="subscribers offer no permessage-deflate, as no browser does",
    )
    parser.add_argument("--json", type=Path, help="also write every single result here")
    arguments = parser.parse_args()
    lacking = {side: SIDES[side].lacks() for side in arguments.sides}
    for side, lack in lacking.items():
        if lack:
            print(f"without {side}: {lack}", flush=True)
    sides = [side for side, lack in lacking.items() if not lack]
    raise_descriptors()
    results: dict[str, dict[str, list[Result]]] = {}
    for load in arguments.loads:
        results[load] = {side: [] for side in sides}
        for turn in range(arguments.rounds):
            for side in sides:
                if load in SIDES[side].no:
                    continue
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
