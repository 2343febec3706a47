"""The loads of the soak, each run by a process of its own for a share of the whole.

Each function puts a number of things through a daemon, counts that all of them were taken, and
returns the seconds it took. None keeps anything between two calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect

from benchmarks.example_result import example_result
from benchmarks.relay_load import Load
from benchmarks.relay_streams import Channel, Subscriber
from monitor.bus import BusSettings
from monitor.bus.spool import SpoolBus
from monitor.messages import Result, encode
from monitor.store import DatabaseSettings, open_store

__all__ = ["TOPIC", "entries", "relay_channels", "results"]

TOPIC = "website_availability"
_JOBS = 1000
# Channels of a wave, how many of them somebody follows, and messages of each.
_WAVE, _FOLLOWED, _MESSAGES = 1000, 40, 3
_LINES, _BATCH = 4, 500
# Results on their way; beyond it the publisher waits for the consumer.
_AHEAD = 40_000
_GROUP = 4000
_WAIT_S = 120.0


def relay_channels(pid: int, ports: tuple[int, int], first: int, count: int) -> float:
    """Report this many jobs from their first message to FINISHED; some are followed all along."""
    began = time.monotonic()
    load = Load(pid, *ports, compression=False)
    for start in range(first, first + count, _WAVE):
        size = min(_WAVE, first + count - start)
        channels = [Channel(start + i, _MESSAGES) for i in range(size)]
        followed = [Subscriber(channel) for channel in channels[-_FOLLOWED:]]
        load.connect(followed)
        load.publish(b"".join(b"".join(channel.published[:-1]) for channel in channels))
        # The followed ones are the last of the queue: when they have ended, all have.
        load.finish(channels)
    load.publisher.close()
    load.epoll.close()
    return time.monotonic() - began


def results(spool: str, url: str, seconds_since: float, first: int, count: int) -> float:
    """Publish this many results to the spool, never far ahead of what is consumed."""
    began = time.monotonic()
    asyncio.run(_results(spool, url, seconds_since, first, count))
    return time.monotonic() - began


async def _results(spool: str, url: str, since: float, first: int, count: int) -> None:
    bus = SpoolBus(BusSettings(file=spool))
    store = open_store(DatabaseSettings(url=url, connections=1))
    await bus.start()
    try:
        for number in range(first, first + count):
            result = _result(number, since)
            ticket = bus.publish(
                TOPIC, value=encode(result), key=str(result.job_id), headers=result.headers()
            )
            if number % _GROUP == 0:
                assert await bus.committed(ticket), "the spool lost a message"
                await _until_counted(store, number - first - _AHEAD, first)
        assert await bus.committed(), "the spool lost a message"
        await _until_counted(store, count, first)
    finally:
        await bus.close()
        await store.close()


async def _until_counted(store: object, wanted: int, first: int) -> None:
    """Wait until that many of these results are rows: progress within the limit, or it fails."""
    last, deadline = -1, time.monotonic() + _WAIT_S
    while True:
        counted = await store.read(_count_checks) - first  # type: ignore[attr-defined]
        if counted >= wanted:
            return
        if counted > last:
            last, deadline = counted, time.monotonic() + _WAIT_S
        assert time.monotonic() < deadline, f"{counted} counted, {wanted} wanted"
        await asyncio.sleep(0.1)


def _count_checks(connection: object) -> int:
    rows = connection.query(  # type: ignore[attr-defined]
        "SELECT coalesce(sum(checks), 0) FROM availability_metric"
        " WHERE granularity = 'day' AND job_id <= %s",
        (_JOBS,),
    )
    return int(rows[0][0])


def _result(number: int, since: float) -> Result:
    """Return a result: of 1000 jobs in turn, each checked every 0.1 s since an instant."""
    job, turn = number % _JOBS + 1, number // _JOBS
    return example_result(number, job=job, scheduled_at=since + turn / 10)


def entries(port: int, first: int, count: int) -> float:
    """Upload this many log entries over a few connections; each batch is acknowledged."""
    began = time.monotonic()
    asyncio.run(_entries(port, first, count))
    return time.monotonic() - began


async def _entries(port: int, first: int, count: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        lines = [
            await stack.enter_async_context(
                connect(
                    f"ws://127.0.0.1:{port}/ws",
                    compression=None,
                    ping_interval=None,
                    open_timeout=60,
                )
            )
            for _ in range(_LINES)
        ]
        starts = iter(range(first, first + count, _BATCH))
        await asyncio.gather(*(_upload(line, starts, first + count) for line in lines))


async def _upload(line: ClientConnection, starts: object, end: int) -> None:
    for start in starts:  # type: ignore[attr-defined]
        size = min(_BATCH, end - start)
        now = time.time() - 0.5
        message = {
            "action": "uploadLogs",
            "sender": f"addon-{start // _BATCH % 100}",
            "upload_id": f"soak-{start}",
            "logs": [
                {
                    "level": "info",
                    "time": now + i / 1000,
                    "sender": f"addon-{start // _BATCH % 100}",
                    "message": f"the valve of line {i % 97} was opened again after {i} ms",
                }
                for i in range(size)
            ],
        }
        async with asyncio.timeout(_WAIT_S):
            while True:
                await line.send(json.dumps(message))
                answer = json.loads(await line.recv())
                if answer["status"] == "ok":
                    break
                assert answer["error"]["code"] == "unavailable", answer
                await asyncio.sleep(0.5)
        assert answer["accepted"] == size, answer


def sizes(directory: Path, names: tuple[str, ...]) -> dict[str, int]:
    """Return how many bytes each file has, with its write-ahead log."""
    return {name: sum(file.stat().st_size for file in directory.glob(f"{name}*")) for name in names}
