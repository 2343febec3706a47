"""What benchmarks.logs puts on the log service, and what it counts."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time
from typing import Any, Final

from websockets.asyncio.client import ClientConnection

from benchmarks.disk import Disk
from benchmarks.logs_client import Server, entry, ms, paced, percentile, upload
from benchmarks.process import uncollected
from monitor.store import DatabaseSettings

__all__ = ["LOADS"]


async def throughput(
    settings: DatabaseSettings, args: argparse.Namespace, disk: Disk
) -> dict[str, Any]:
    """4 connections, each with one batch of 500 on its way at a time."""
    with Server(settings, timewindow=3600, max_entries_per_second=1_000_000) as server:

        async def send(connection: ClientConnection, sender: str, until: float) -> int:
            stored = 0
            while time.perf_counter() < until:
                # A device sends what it has seen: the last half second, in order.
                since = time.time() - 0.5
                await connection.send(
                    upload([entry(n, since + n / 1000, sender) for n in range(500)])
                )
                answer = json.loads(await connection.recv())
                assert answer["accepted"] == 500, answer
                stored += 500
            return stored

        async with contextlib.AsyncExitStack() as stack:
            connections = [await stack.enter_async_context(server.connect()) for _ in range(4)]
            pairs = [(connection, f"addon-{n}") for n, connection in enumerate(connections)]
            await asyncio.gather(*(send(c, s, time.perf_counter() + 1) for c, s in pairs))
            begun, cpu = time.perf_counter(), server.cpu_s()
            until = begun + args.seconds
            stored = sum(await asyncio.gather(*(send(c, s, until) for c, s in pairs)))
            took = time.perf_counter() - begun
            cpu = server.cpu_s() - cpu
    return {"entries_per_s": round(stored / took), "server_cores": round(cpu / took, 2)}


async def connections(
    settings: DatabaseSettings, args: argparse.Namespace, disk: Disk
) -> dict[str, Any]:
    """1000 connections, one entry a second each, spread over the second."""
    count = 1000
    with Server(settings, timewindow=3600) as server:
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(server.connect()) for _ in range(count)]
            with uncollected():
                begin = time.perf_counter() + 0.5
                waits = await asyncio.gather(
                    *(
                        paced(client, begin + number / count, 1.0, args.seconds, f"addon-{number}")
                        for number, client in enumerate(clients)
                    )
                )
    disk.stop()
    # The first second warms up.
    uploads = [(sent, wait) for client in waits for sent, wait in client if sent >= begin + 1]
    return {
        "uploads": len(uploads),
        "p50_ms": ms(percentile([wait for _, wait in uploads], 50)),
        **_p99(disk, uploads),
        "max_ms": ms(max(wait for _, wait in uploads)),
    }


def _p99(disk: Disk, uploads: list[tuple[float, float]], suffix: str = "") -> dict[str, Any]:
    """Return the p99 of all uploads, and of those that no stall of the disk can have held up."""
    answering = [wait for sent, wait in uploads if not disk.stalled(sent, sent + wait)]
    return {
        f"p99_ms{suffix}": ms(percentile([wait for _, wait in uploads], 99)),
        f"p99_ms{suffix}_disk_answering": ms(percentile(answering, 99)),
        f"uploads{suffix}_disk_answering": len(answering),
    }


async def query(settings: DatabaseSettings, args: argparse.Namespace, disk: Disk) -> dict[str, Any]:
    """Read getLogs of a 10 s window among 10 M entries of an hour, 1000 senders."""
    total, window = 10_000_000, 3600
    with Server(settings, timewindow=window, cleanup_interval=3600) as server:
        end = float(int(time.time()))
        server.tell(do="stand still", at=end)
        begun = time.perf_counter()
        server.tell(do="fill", count=total, since=end - window + 1, until=end, senders=1000)
        filled = time.perf_counter() - begun
        kinds: dict[str, dict[str, Any]] = {
            "all": {},
            "sender": {"sender": "addon-7"},
            "min_level": {"min_level": "error"},
            "contains": {"contains": "LINE 42 "},
        }
        waits: dict[str, list[float]] = {kind: [] for kind in kinds}
        rows: dict[str, int] = {}
        async with server.connect() as client:
            for number in range(400):
                kind = list(kinds)[number % len(kinds)]
                message = {"action": "getLogs", "timewindow": 10, **kinds[kind]}
                begun = time.perf_counter()
                await client.send(json.dumps(message))
                answer = json.loads(await client.recv())
                if number >= 20:
                    waits[kind].append(time.perf_counter() - begun)
                rows[kind] = len(answer["logs"])
    everything = [wait for each in waits.values() for wait in each]
    return {
        "entries": total,
        "fill_s": round(filled),
        "p50_ms": ms(percentile(everything, 50)),
        "p95_ms": ms(percentile(everything, 95)),
        **{f"p95_ms_{kind}": ms(percentile(each, 95)) for kind, each in waits.items()},
        "rows": rows,
    }


async def purge(settings: DatabaseSettings, args: argparse.Namespace, disk: Disk) -> dict[str, Any]:
    """Purge 1 M expired entries of ten minutes while 100 connections upload one a second each."""
    total, window, rounds, head = 1_000_000, 600, 3, 100_000
    times: list[float] = []
    head_times: list[float] = []
    steps: list[tuple[float, float]] = []
    before: list[tuple[float, float]] = []
    during: list[tuple[float, float]] = []
    with Server(settings, timewindow=window, cleanup_interval=3600) as server:
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(server.connect()) for _ in range(100)]
            for _ in range(rounds):
                # Whole partitions of 60 s, the last of which has just expired.
                edge = (time.time() - window) // 60 * 60
                fill = {"since": edge - 600, "until": edge - 0.001, "senders": 100}
                await asyncio.to_thread(server.tell, do="fill", count=total, **fill)
                with uncollected():
                    begin = time.perf_counter() + 0.2
                    uploads = asyncio.gather(
                        *(
                            paced(client, begin + number / 100, 1.0, 10, f"addon-{number}")
                            for number, client in enumerate(clients)
                        )
                    )
                    await asyncio.sleep(4)
                    started = time.perf_counter()
                    done = await asyncio.to_thread(server.tell, do="purge")
                    ended = time.perf_counter()
                    found = [upload for client in await uploads for upload in client]
                times.append(done["took"])
                steps += done["steps"]
                before += [each for each in found if begin + 1 <= each[0] < started - 0.2]
                during += [each for each in found if started - 0.05 <= each[0] <= ended + 1]
                edge = (time.time() - window) // 60 * 60
                fill = {"since": edge, "until": time.time() - window, "senders": 100}
                await asyncio.to_thread(server.tell, do="fill", count=head, **fill)
                done = await asyncio.to_thread(server.tell, do="purge")
                head_times.append(done["took"])
                steps += done["steps"]
    disk.stop()
    answering = [took for begun, took in steps if not disk.stalled(begun, begun + took)]
    return {
        "entries": total,
        "purge_s": round(percentile(times, 50), 3),
        "purge_max_s": round(max(times), 3),
        "head_entries": head,
        "head_s": round(percentile(head_times, 50), 3),
        "steps": len(steps),
        "steps_over_50_ms": sum(took > 0.05 for _, took in steps),
        "longest_step_ms": ms(max(took for _, took in steps)),
        "longest_step_ms_disk_answering": ms(max(answering)),
        **_p99(disk, before, "_before"),
        **_p99(disk, during, "_during"),
    }


async def followers(
    settings: DatabaseSettings, args: argparse.Namespace, disk: Disk
) -> dict[str, Any]:
    """1000 followers of one sender that says 100 entries a second, one an upload."""
    count = 1000
    delays: list[float] = []
    dropped = 0
    with Server(settings, timewindow=3600) as server:
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(server.connect()) for _ in range(count)]
            for client in clients:
                await client.send(json.dumps({"action": "followLogs", "sender": "addon-1"}))
                assert json.loads(await client.recv())["status"] == "ok"

            async def follow(client: ClientConnection) -> None:
                nonlocal dropped
                async for text in client:
                    message = json.loads(text)
                    now = time.time()
                    dropped += message["dropped"]
                    delays.extend(now - each["time"] for each in message["logs"])

            with uncollected():
                readers = [asyncio.create_task(follow(client)) for client in clients]
                sender = await stack.enter_async_context(server.connect())
                cpu, begun = server.cpu_s(), time.perf_counter()
                sent = await paced(sender, begun, 0.01, args.seconds, "addon-1")
                cpu, took = server.cpu_s() - cpu, time.perf_counter() - begun
                deadline = time.perf_counter() + 5
                while len(delays) < count * len(sent) and time.perf_counter() < deadline:
                    await asyncio.sleep(0.05)
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
    return {
        "entries": len(sent),
        "deliveries": len(delays),
        "missing": count * len(sent) - len(delays),
        "dropped": dropped,
        "p50_ms": ms(percentile(delays, 50)),
        "p99_ms": ms(percentile(delays, 99)),
        "server_cores": round(cpu / took, 2),
    }


LOADS: Final[dict[str, Any]] = {
    "throughput": throughput,
    "connections": connections,
    "query": query,
    "purge": purge,
    "followers": followers,
}
