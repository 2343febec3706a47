"""What the log service does a second, and how long its clients wait.

    benchmarks/run logs throughput|connections|query|purge|followers
        [--database postgresql|sqlite]

Each starts what it needs (a PostgreSQL cluster with its defaults but for max_wal_size, the
server in a process of its own, clients in this one) and prints one line of JSON. Next to the
figures is what the same disk did meanwhile, for a process of its own that writes 16 KB each
5 ms: what is durable waits for the disk. All files are in $TMPDIR; one in memory (/dev/shm)
shows what the service takes with no disk.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.disk import beside
from benchmarks.logs_loads import LOADS
from monitor.store import DatabaseSettings
from tests.servers.postgres import make_server


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=sorted(LOADS), help="default: all")
    parser.add_argument("--database", choices=["postgresql", "sqlite"], help="default: both")
    parser.add_argument("--seconds", type=float, default=10)
    args = parser.parse_args()
    for what in [args.what] if args.what else LOADS:
        kinds = [args.database] if args.database else ["postgresql", "sqlite"]
        for kind in kinds:
            with tempfile.TemporaryDirectory(prefix="recodex-monitor-bench-") as name:
                directory = Path(name)
                with database(kind, directory) as settings, beside(directory) as disk:
                    figures = asyncio.run(LOADS[what](settings, args, disk))
            shown = {"benchmark": what, "database": kind, **figures, **disk.figures()}
            print(json.dumps(shown), flush=True)
    return 0


@contextlib.contextmanager
def database(kind: str, directory: Path) -> Iterator[DatabaseSettings]:
    if kind == "sqlite":
        yield DatabaseSettings(file=str(directory / "monitor.db"))
        return
    server = make_server({"max_connections": "20", "max_wal_size": "8GB"})
    try:
        server.start()
        yield DatabaseSettings(url=server.url(server.create_database()))
    finally:
        server.remove()


if __name__ == "__main__":
    sys.exit(main())
