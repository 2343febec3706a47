"""Publishes results to a bus with Kafka, and says how fast Kafka acknowledged them all."""

from __future__ import annotations

import asyncio
import sys
import time

from monitor import messages
from monitor.bus import BusSettings, KafkaSettings, create_bus
from monitor.bus.spool_file import SpoolFile
from monitor.messages import Phases, Result

BATCH = 500


def result(number: int) -> Result:
    """Return one result like those of a real check."""
    return Result(
        job_id=number % 1000 + 1,
        url="https://www.example.org/index.html",
        scheduled_at=1_795_000_000.0 + number,
        checked_at=1_795_000_000.01 + number,
        kind="http",
        up=True,
        status=200,
        response_time=0.0123,
        duration=0.0124,
        error=None,
        matched=True,
        phases=Phases(0.001, 0.002, 0.003, 0.004, 0.005),
    )


async def main(server: str, count: int) -> None:
    """Publish ``count`` results, pausing where too many wait, as a runner never would."""
    settings = BusSettings(max_bytes=1 << 30)
    bus = create_bus(settings, KafkaSettings(bootstrap_servers=[server], partitions=3))
    await bus.start()
    began, cpu = time.monotonic(), time.process_time()
    for first in range(0, count, BATCH):
        for number in range(first, first + BATCH):
            found = result(number)
            bus.publish(
                "website_availability",
                key=str(found.job_id),
                value=messages.encode(found),
                headers=found.headers(),
            )
        await asyncio.sleep(0)
        if first % 20_000 == 0:
            await bus.committed()
    await bus.committed()
    # Kafka has acknowledged what is no longer in the spool.
    spool = SpoolFile(settings.path(), max_bytes=settings.max_bytes)
    while spool.count():
        await asyncio.sleep(0.01)
    took, cpu = time.monotonic() - began, time.process_time() - cpu
    await bus.close()
    print(
        f"to Kafka through the spool: {count / took:.0f} results/s,"
        f" {cpu / count * 1e6:.0f} us of CPU a result",
        flush=True,
    )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
