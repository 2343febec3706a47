"""The whole daemon for benchmarks.soak, which also tells how much memory is in use.

Runs what ``recodex-monitor -c FILE`` runs. At each SIGUSR1 the bytes that were allocated and not
freed go, as JSON, to ``in-use`` next to the config: those of Python's objects, and those of
everything else by malloc. What allocators keep for the next time is not in them, and so neither
is what makes resident memory go up and down.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import re
import signal
import sys
import tempfile
from pathlib import Path

import monitor.daemon.lifecycle
from monitor.daemon.lifecycle import Daemon, run_daemon

__all__ = ["REPORT"]

REPORT = "in-use"


class _Mallinfo(ctypes.Structure):
    # struct mallinfo2 of glibc 2.33 and later, see mallinfo(3)
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def _by_malloc() -> int:
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _Mallinfo
    found = mallinfo2()
    return int(found.uordblks + found.hblkhd)


def _by_python() -> int:
    """Return the bytes of small objects, which Python says nowhere but on stderr."""
    stderr = os.dup(2)
    try:
        with tempfile.TemporaryFile() as said:
            os.dup2(said.fileno(), 2)
            sys._debugmallocstats()
            os.dup2(stderr, 2)
            said.seek(0)
            text = said.read().decode("ascii", "replace")
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    found = re.search(r"bytes in allocated blocks\s*=\s*([\d,]+)", text)
    assert found is not None, text
    return int(found[1].replace(",", ""))


class Watched(Daemon):
    """The daemon that tells."""

    async def run(self) -> int:
        """Run the daemon."""

        def tell() -> None:
            gc.collect()
            report = Path(sys.argv[2]).with_name(REPORT)
            part = report.with_suffix(".part")
            part.write_text(json.dumps([_by_python(), _by_malloc()]), encoding="ascii")
            part.rename(report)

        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, tell)
        return await super().run()


if __name__ == "__main__":
    monitor.daemon.lifecycle.Daemon = Watched  # type: ignore[misc]
    sys.exit(run_daemon(sys.argv[2]))
