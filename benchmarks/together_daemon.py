"""The whole daemon for benchmarks.together, which also watches its own loop.

Runs what ``recodex-monitor -c FILE`` runs. A timer of 10 ms tells how late the loop is; at
each SIGUSR1 that, how long the garbage collector stopped all threads, and the names of the
threads by their ids, go to the second argument's file as JSON, and the samples start over.
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
import threading
import time
from pathlib import Path

import monitor.daemon.lifecycle
from monitor.daemon.lifecycle import Daemon, run_daemon

_TICK_S = 0.01


class Watched(Daemon):
    """The daemon with a timer of its own."""

    async def run(self) -> int:
        """Run the daemon."""
        loop = asyncio.get_running_loop()
        late: list[float] = []
        pauses: list[float] = []
        began = 0.0
        due = loop.time()

        def tick() -> None:
            nonlocal due
            now = loop.time()
            late.append(now - due)
            due = now + _TICK_S
            loop.call_at(due, tick)

        def collected(phase: str, info: dict[str, int]) -> None:
            nonlocal began
            if phase == "start":
                began = time.perf_counter()
            elif info["generation"]:
                pauses.append(time.perf_counter() - began)

        def tell() -> None:
            threads = {each.native_id: each.name for each in threading.enumerate()}
            report = Path(sys.argv[2])
            part = report.with_suffix(".part")
            part.write_text(
                json.dumps({"late": late, "pauses": pauses, "threads": threads}), encoding="utf-8"
            )
            part.rename(report)
            late.clear()
            pauses.clear()

        gc.callbacks.append(collected)
        loop.call_soon(tick)
        loop.add_signal_handler(signal.SIGUSR1, tell)
        return await super().run()


if __name__ == "__main__":
    monitor.daemon.lifecycle.Daemon = Watched  # type: ignore[misc]
    sys.exit(run_daemon(sys.argv[1]))
