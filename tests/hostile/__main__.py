"""Attacks a daemon in every way that tests/hostile knows, and prints what each costs.

    make hostile                       one connection, then sixteen, 10 s each
    make hostile EACH=60               longer
    make hostile ONLY=chunks           only those attacks whose name contains it

It exits with 1 if an honest reader lost something, or the daemon did not answer any more.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.hostile.attacked import Attacked
from tests.hostile.attacks import ATTACKS


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each attack")
    parser.add_argument("--only", default="", help="part of an attack's name")
    parser.add_argument("--connections", type=int, nargs="*", default=[1, 16])
    arguments = parser.parse_args()
    failed = 0
    head = "listener", "attack", "peers", "late ms", "p99 ms", "x quiet", "+MiB", "sent MB"
    row = "{:9}{:26}{:>6}{:>9}{:>9}{:>9}{:>7}{:>9}{:>8}{:>6}"
    quiet_s = 0.0
    say(row.format(*head, "closed", "lost"))
    for attack in (None, *ATTACKS):
        name = "none" if attack is None else attack.name
        if attack is not None and arguments.only not in name:
            continue
        for connections in arguments.connections if attack is not None else [0]:
            # A daemon of its own, so that what one attack left does not count for the next.
            with tempfile.TemporaryDirectory() as directory:
                attacked = Attacked(Path(directory))
                try:
                    cost = attacked.suffer(
                        attack, connections=connections, seconds=arguments.seconds
                    )
                    healthy = attacked.healthy()
                except (AssertionError, OSError) as error:
                    say(f"{name}: {error}")
                    failed += 1
                    continue
                finally:
                    attacked.close()
            failed += bool(cost.lost) or not healthy
            quiet_s = quiet_s or cost.p99_s
            say(
                row.format(
                    "-" if attack is None else attack.listener,
                    name,
                    connections,
                    f"{cost.late_s * 1000:.0f}",
                    f"{cost.p99_s * 1000:.1f}",
                    f"{cost.p99_s / quiet_s:.1f}",
                    f"{cost.grown_bytes / 2**20:.0f}",
                    f"{cost.sent / 1e6:.1f}",
                    cost.closed,
                    cost.lost,
                )
                + (repr(cost.last[-60:]) if cost.closed else "")
            )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
