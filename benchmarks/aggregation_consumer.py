"""The consumer that benchmarks/aggregation.py measures, in a process of its own.

Reads a config's sections ``bus``, ``kafka``, ``database`` and ``aggregation`` as JSON from its
standard input, drains the topic, and prints what it took as JSON.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time

from monitor.aggregation.part import Aggregation
from monitor.bus import create_bus
from monitor.daemon.config import Config, load
from monitor.daemon.interpreter import new_event_loop
from monitor.store import open_store
from monitor.yielding import attending

_LIMIT_S = 200
# The last batch is not full, so it waits for flush_interval.
_MEASURED = 0.8


async def drain(config: Config, messages: int) -> dict[str, float]:
    """Consume until ``messages`` are written; times are s without the start, memory bytes.

    The times are those of the first ``measured`` messages.
    """
    assert config.aggregation is not None
    bus = create_bus(config.bus, config.kafka)
    store = open_store(config.database)
    await bus.start()
    await store.start()
    part = Aggregation(config.aggregation, bus=bus, store=store)
    task = asyncio.create_task(part.run())
    begun: tuple[float, float] | None = None
    measured: tuple[int, float, float] | None = None
    statistics = part.statistics
    async with asyncio.timeout(_LIMIT_S):
        done = 0
        while done < messages:
            if begun is None and part.partitions():
                begun = time.monotonic(), _cpu_s()
            if task.done():
                task.result()
            await asyncio.sleep(0.002)
            done = statistics.new + statistics.duplicates + statistics.rejected
            if measured is None and done >= _MEASURED * messages:
                measured = done, time.monotonic(), _cpu_s()
    assert begun is not None
    assert measured is not None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await store.close()
    await bus.close()
    return {
        "measured": measured[0],
        "took_s": measured[1] - begun[0],
        "cpu_s": measured[2] - begun[1],
        "memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "results": statistics.new,
        "longest_commit_s": statistics.longest_commit_s,
    }


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def run() -> None:
    file, messages = sys.argv[1:]
    sys.setswitchinterval(0.0005)  # as the daemon does
    config = load(file).config
    with asyncio.Runner(loop_factory=new_event_loop) as runner, attending(runner.get_loop()):
        print(json.dumps(runner.run(drain(config, int(messages)))))


if __name__ == "__main__":
    run()
