"""Uploads log entries at an even rate, for benchmarks.together; prints one line of JSON.

Connections take turns, each with one batch on its way: ``together_logs.py URL ENTRIES_PER_S
CONNECTIONS SECONDS``. A wait is from when a batch was due to its answer.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import msgspec
from websockets.asyncio.client import ClientConnection, connect

_BATCHES_PER_S = 10  # of a connection
_encode = msgspec.json.Encoder().encode


def upload(sender: str, count: int) -> str:
    """Return a batch: what a device has said in the last tenth of a second."""
    now = time.time()
    entries = [
        {
            "level": "info",
            "time": now - 0.1 + number * 0.1 / count,
            "sender": sender,
            "message": f"the valve of line {number} was opened and closed again, as planned",
        }
        for number in range(count)
    ]
    return _encode({"action": "uploadLogs", "logs": entries}).decode()


async def device(
    connection: ClientConnection, number: int, batch: int, begin: float, end: float
) -> tuple[int, list[float]]:
    """Upload batch after batch; return how many entries were stored, and the waits."""
    stored, waits, turn = 0, [], 0
    while (due := begin + turn / _BATCHES_PER_S) < end:
        await asyncio.sleep(due - time.perf_counter())
        await connection.send(upload(f"device-{number}", batch))
        answer = json.loads(await connection.recv())
        if answer["status"] != "ok":
            raise SystemExit(f"an upload was refused: {answer}")
        stored += answer["accepted"]
        waits.append(time.perf_counter() - due)
        turn += 1
    return stored, waits


async def run(url: str, rate: int, connections: int, seconds: float) -> dict[str, float]:
    """Upload for this many seconds."""
    sockets = [await connect(url, compression=None) for _ in range(connections)]
    batch = round(rate / connections / _BATCHES_PER_S)
    begin = time.perf_counter() + 0.2
    spread = 1 / _BATCHES_PER_S / connections
    done = await asyncio.gather(
        *(
            device(socket, number, batch, begin + number * spread, begin + seconds)
            for number, socket in enumerate(sockets)
        )
    )
    took = time.perf_counter() - begin
    for socket in sockets:
        await socket.close()
    waits = sorted(wait for _, each in done for wait in each)
    return {
        "entries_per_s": sum(stored for stored, _ in done) / took,
        "p50_s": waits[len(waits) // 2],
        "p99_s": waits[len(waits) * 99 // 100],
        "max_s": waits[-1],
    }


if __name__ == "__main__":
    url, rate, connections, seconds = sys.argv[1:]
    print(json.dumps(asyncio.run(run(url, int(rate), int(connections), float(seconds)))))
