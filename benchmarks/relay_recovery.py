"""The recovering protocol compared with the old one, and 10,000 lost connections.

The same loads, checked message by message, with either protocol in turn on one daemon, until a
second of its CPU or more is counted for each; that is what is compared. Then 10,000 subscribers
of the recovering protocol are cut off at once while messages keep coming, come back in the second
that the close codes' table gives them, and resume: how long until each has everything, once and
in order.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.process import LOAD_CORE, free_ports, pinned, raise_descriptors, running
from benchmarks.relay_load import Result
from benchmarks.relay_recovery_loads import LOADS
from benchmarks.relay_recovery_readers import OLD, RECOVERING

__all__ = ["main"]

HERE = Path(__file__).parent


def one_run(name: str, *options: str, history_file: bool) -> Any:
    """Start a daemon, put one load on it from the other core, and stop it; return what it says."""
    with tempfile.TemporaryDirectory(prefix="relay-recovery-") as directory:
        websocket, publish = free_ports(2)
        config = Path(directory) / "config.yml"
        saving = "history.db" if history_file else "null"
        config.write_text(
            f'websocket_uri: ["127.0.0.1", {websocket}]\nzeromq_uri: ["127.0.0.1", {publish}]\n'
            f"logger: {{file: {directory}/monitor.log, level: info}}\n"
            f"relay: {{max_clients: 12000, history_file: {saving}}}\n",
            encoding="utf-8",
        )
        command = [sys.executable, str(HERE.parent / "main.py"), "-c", str(config)]
        with running(
            command, directory=Path(directory), environment={"STATE_DIRECTORY": directory}
        ) as server:
            load = [sys.executable, str(HERE / "relay_recovery_loads.py"), name, *options]
            load += ["--pid", str(server.pid), "--ports", str(websocket), str(publish)]
            done = subprocess.run(
                pinned(LOAD_CORE, load), stdout=subprocess.PIPE, check=False, timeout=600
            )
            if done.returncode:
                raise SystemExit(f"load {name} failed")
            return json.loads(done.stdout)


def per_100k(results: Sequence[Result]) -> float:
    """Return the median of the turns' CPU s per 100k deliveries."""
    return statistics.median(one["cpu_s"] / one["deliveries"] * 1e5 for one in results)


def main() -> None:
    """Read the command line, measure, print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--loads", nargs="+", choices=[*LOADS, "lost"], default=[*LOADS, "lost"])
    parser.add_argument("--rounds", type=int, default=3, help="turns of each protocol, at least")
    parser.add_argument("--cpu", type=float, default=1.0, help="s of each protocol, at least")
    parser.add_argument("--history-file", action="store_true", help="save histories meanwhile")
    arguments = parser.parse_args()
    raise_descriptors()
    print("| load | turns | CPU s counted | v1, CPU s per 100k deliveries | v2 | v2 / v1 |")
    print("|---|---|---|---|---|---|", flush=True)
    options = ("--turns", str(arguments.rounds), "--cpu", str(arguments.cpu))
    for name in [name for name in arguments.loads if name != "lost"]:
        found = one_run(name, *options, history_file=arguments.history_file)
        old, new = per_100k(found[OLD]), per_100k(found[RECOVERING])
        counted = min(sum(one["cpu_s"] for one in results) for results in found.values())
        print(
            f"| {name} | {len(found[OLD])} | {counted:.2f} | {old:.3g} | {new:.3g} |"
            f" {new / old:.2f} |",
            flush=True,
        )
    if "lost" in arguments.loads:
        print("\n10,000 subscribers cut off at once, resumed with all messages sent meanwhile:")
        for _ in range(arguments.rounds):
            found = one_run("lost", history_file=arguments.history_file)
            print(
                f"all after {found['all_s']:.2f} s (half after {found['p50_s']:.2f} s, 99 % after"
                f" {found['p99_s']:.2f} s), {found['refused']:.0f} refused on the way,"
                f" {found['cpu_s']:.2f} s of CPU",
                flush=True,
            )
