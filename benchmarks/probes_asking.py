"""Asks prometheus-blackbox-exporter for checks at a fixed rate, and prints how many it made.

``python -m benchmarks.probes_asking PORT PATH RATE SECONDS``; fails if a check is not a success. A
request is due every 1/RATE s, over 16 connections that stay open.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time

CONNECTIONS = 16
_MOST_S = 60.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


async def ask(port: int, path: str, due: asyncio.Queue[None]) -> None:
    """Make a request for each item of the queue."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    while True:
        await due.get()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if length is not None:
            body = await reader.readexactly(int(length[1]))
        else:
            body = b""
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:size]
            await reader.readline()
        assert b"\nprobe_success 1" in body, head + body
        due.task_done()


async def main(port: int, path: str, rate: float, seconds: float) -> None:
    """Ask, and print the count once all are answered."""
    due: asyncio.Queue[None] = asyncio.Queue()
    asking = [asyncio.create_task(ask(port, path, due)) for _ in range(CONNECTIONS)]
    began, count = time.monotonic(), 0
    while (passed := time.monotonic() - began) < seconds:
        for _ in range(int(passed * rate) - count):
            due.put_nowait(None)
            count += 1
        await asyncio.sleep(0.001)
        assert not any(task.done() for task in asking), [task.exception() for task in asking]
    await asyncio.wait_for(due.join(), _MOST_S)
    print(count)
    for task in asking:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), float(sys.argv[4])))
