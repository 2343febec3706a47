"""Runs the benchmarks: each module here that has a `main()` is one, named as its file."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

USAGE = """\
usage: benchmarks/run                   every benchmark, one after the other
       benchmarks/run --list            what there is
       benchmarks/run NAME [ARGUMENT...]   one; `benchmarks/run NAME --help` says what it takes"""


def benchmarks() -> dict[str, str]:
    """Return the names of all benchmarks, each with the first line of its docstring."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        source = path.read_text(encoding="utf-8")
        if not path.name.startswith("_") and re.search(r"^def main\(", source, re.MULTILINE):
            title = re.match(r'"""(.*?)(?:"""|\n)', source)
            found[path.stem] = title[1] if title else ""
    return found


def run(name: str, arguments: list[str]) -> int:
    """Run one benchmark as if it had been started by itself; return its exit status."""
    print(f"== {name}", flush=True)
    sys.argv = [f"benchmarks/run {name}", *arguments]
    return int(importlib.import_module(f"benchmarks.{name}").main() or 0)


def choose(arguments: list[str]) -> int:
    found = benchmarks()
    if not arguments:
        return max([run(name, []) for name in found], default=0)
    if arguments[0] == "--list":
        for name, title in found.items():
            print(f"{name:20} {title}")
        return 0
    if arguments[0] not in found:
        print(USAGE, file=sys.stderr)
        return 0 if arguments[0] in {"-h", "--help"} else 2
    return run(arguments[0], arguments[1:])


if __name__ == "__main__":
    sys.exit(choose(sys.argv[1:]))
