"""The cluster part: from a change to its event, memory and turns of the loop with many objects.

The Kubernetes API is the tests' server, in a process of its own; the part runs with a real
store and a real spool, as in the daemon. Baselines: the same process before the part has any
object, and the kubernetes package's own watch on the same server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import tempfile
import threading
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import urllib3

from monitor.bus import Record
from monitor.daemon.allocator import give_memory_back
from monitor.messages import decode_model_event
from monitor.yielding import attending
from tests.cluster.conftest import Lab, Run
from tests.cluster.plays import DeploymentPlay
from tests.servers.kubernetes import KubernetesServer

MB = 1024 * 1024


class Server:
    """The server in a process of its own, told what to do over a pipe."""

    def __init__(self, objects: int, pods: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, objects, pods), daemon=True)
        self._process.start()
        self.url = self._pipe.recv()

    def ask(self, *what: Any) -> Any:
        """Let the server do something and return what it answers."""
        self._pipe.send(what)
        return self._pipe.recv()

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join(5)


def serve(pipe: Connection, objects: int, pods: int) -> None:
    """Hold ``objects`` Deployments with ``pods`` pods each, and change them when asked."""
    server = KubernetesServer()
    lab = Lab(server, Path())
    plays = []
    for number in range(objects):
        play = DeploymentPlay(f"model-{number}", replicas=pods)
        # As real objects have it: what managed them, and annotations of some size.
        play.labels["pad"] = "x" * 60
        lab.play(play.create("registry.example/models/m:1"))
        play.item["metadata"]["annotations"]["note"] = "y" * 4000
        lab.play(play.annotate("notes", "z" * 2000))
        plays.append(play)
    pipe.send(server.url)
    number = 1
    while True:
        what, *rest = pipe.recv()
        if what == "upgrade":
            play = plays[rest[0]]
            number += 1
            lab.play(play.set_image(f"registry.example/models/m:{number}"))
            # The last write is what completes the rollout.
            pipe.send(time.time())
        elif what == "expire":
            server.break_watches("gone")
            pipe.send(None)
        elif what == "annotate":
            server.replace_silently(step for play in plays for step in play.annotate("a", "b"))
            pipe.send(None)
        elif what == "lists":
            pipe.send(len(server.requests_of("watch", "deployments")))


def memory() -> float:
    """Return this process's resident memory, in MB."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return int(text.split("Rss:")[1].split()[0]) / 1024


class Url:
    """As much of a server as a kubeconfig needs."""

    def __init__(self, url: str) -> None:
        self.url = url


async def latency(
    server: Server, changes: int, objects: int, kinds: Sequence[str]
) -> dict[str, list[float]]:
    """Return the ms from changes to their rows, to their events on the bus, and to a bare watch's
    lines.
    """
    bare: list[float] = []
    seen = threading.Event()
    with tempfile.TemporaryDirectory() as directory:
        lab = Lab(Url(server.url), Path(directory))  # type: ignore[arg-type]
        async with lab.run(kinds=tuple(kinds)) as part:
            while len(part.records) < objects:
                await asyncio.sleep(0.05)
            await part.healthy()
            watcher = threading.Thread(target=watch, args=(server.url, bare, seen), daemon=True)
            watcher.start()
            await asyncio.to_thread(seen.wait, 10)
            late: dict[str, list[float]] = {"row": [], "event": [], "bare watch's line": []}
            for number in range(changes):
                part.records.clear()
                rows = committed(part)
                bare.clear()
                changed = await asyncio.to_thread(server.ask, "upgrade", number % objects)
                while committed(part) == rows:
                    await asyncio.sleep(0.001)
                late["row"].append((time.time() - changed) * 1000)
                while not any(is_upgrade(record) for record in part.records):
                    await asyncio.sleep(0.001)
                late["event"].append((time.time() - changed) * 1000)
                await asyncio.sleep(0.05)
                late["bare watch's line"].append((bare[-1] - changed) * 1000)
            return late


def committed(part: Run) -> float:
    """Return how many upgrades the part has put into its table."""
    return sum(
        value
        for metric in part.part.metrics()
        if metric.name == "model_updates_total"
        for labels, value in metric.samples
        if labels["type"].endswith(".upgraded")
    )


def is_upgrade(record: Record) -> bool:
    return decode_model_event(record.value).cause == "image-changed"


def watch(url: str, arrived: list[float], seen: threading.Event) -> None:
    """Watch with the package's own Watch, and note when its events come."""
    from kubernetes import client
    from kubernetes import watch as kubernetes_watch

    configuration: Any = client.Configuration()
    configuration.host = url
    api = client.CustomObjectsApi(client.ApiClient(configuration))
    listed: Any = api.list_cluster_custom_object("apps", "v1", "deployments", limit=1)
    seen.set()
    make: Any = kubernetes_watch.Watch
    stream = make().stream(
        api.list_cluster_custom_object,
        "apps",
        "v1",
        "deployments",
        resource_version=listed["metadata"]["resourceVersion"],
        timeout_seconds=300,
    )
    with suppress(urllib3.exceptions.HTTPError):  # the server ends first
        for _ in stream:
            arrived.append(time.time())  # noqa: PERF401 - read while it grows


async def footprint(server: Server, objects: int, kinds: Sequence[str]) -> dict[str, float]:
    """Return the MB of the process without the part, with it empty, and with all objects."""
    give_memory_back()
    sizes = {"without": memory()}
    with tempfile.TemporaryDirectory() as directory:
        lab = Lab(Url(server.url), Path(directory))  # type: ignore[arg-type]
        async with lab.run(kinds=("Deployment",), label_selector="none=there") as part:
            await part.healthy()
            sizes["with the part, no objects"] = memory()
    with tempfile.TemporaryDirectory() as directory:
        lab = Lab(Url(server.url), Path(directory))  # type: ignore[arg-type]
        began = time.monotonic()
        async with lab.run(kinds=tuple(kinds)) as part:
            while len(part.records) < objects:
                await asyncio.sleep(0.05)
            await part.healthy()
            sizes["seconds to tell all"] = time.monotonic() - began
            part.records.clear()
            sizes["with all objects"] = memory()
    return sizes


async def relist(server: Server, objects: int, kinds: Sequence[str]) -> dict[str, float]:
    """Return the longest turns of the loop, in ms: at rest, and while all is listed again.

    First nothing has changed, then every Deployment has.
    """
    figures: dict[str, float] = {}
    turns = Turns()
    with tempfile.TemporaryDirectory() as directory, attending(asyncio.get_running_loop()):
        lab = Lab(Url(server.url), Path(directory))  # type: ignore[arg-type]
        async with lab.run(kinds=tuple(kinds)) as part:
            while len(part.records) < objects:
                await asyncio.sleep(0.05)
            await part.healthy()
            part.records.clear()
            figures["at rest, longest"] = (await turns.during(asyncio.sleep(3.0)))[-1]
            for name in ("nothing changed", "all changed"):
                if name == "all changed":
                    await asyncio.to_thread(server.ask, "annotate")
                began = time.monotonic()
                late = await turns.during(listed_again(server))
                figures[f"{name}, longest"] = late[-1]
                figures[f"{name}, 99 of 100 below"] = late[len(late) * 99 // 100]
                figures[f"{name}, s"] = time.monotonic() - began
    return figures


async def listed_again(server: Server) -> None:
    """Let the versions of all watches expire; return when the Deployments are watched again."""
    before = await asyncio.to_thread(server.ask, "lists")
    await asyncio.to_thread(server.ask, "expire")
    while await asyncio.to_thread(server.ask, "lists") == before:
        await asyncio.sleep(0.02)


class Turns:
    """Measures how late the loop is with what is due every 2 ms."""

    async def during(self, work: Coroutine[Any, Any, None]) -> list[float]:
        """Do the work, and return by how many ms each turn was late, sorted."""
        late: list[float] = []
        task = asyncio.create_task(work)
        while not task.done():
            due = time.monotonic() + 0.002
            await asyncio.sleep(0.002)
            late.append(max(0.0, time.monotonic() - due) * 1000)
        await task
        return sorted(late)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=5000)
    parser.add_argument("--pods", type=int, default=1, help="pods of each Deployment")
    parser.add_argument("--changes", type=int, default=100)
    parser.add_argument("--only", choices=["latency", "memory", "relist"])
    parser.add_argument(
        "--kinds",
        nargs="+",
        default=["Deployment", "Pod", "StatefulSet", "DaemonSet", "ReplicaSet"],
        help="what is watched; the objects are Deployments",
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    objects, kinds = arguments.objects, arguments.kinds
    if arguments.only in {None, "memory"}:
        server = Server(objects, arguments.pods)
        figures["memory_mb"] = asyncio.run(footprint(server, objects, kinds))
        server.stop()
    if arguments.only in {None, "relist"}:
        server = Server(objects, arguments.pods)
        figures["late_ms"] = asyncio.run(relist(server, objects, kinds))
        server.stop()
    if arguments.only in {None, "latency"}:
        server = Server(objects, arguments.pods)
        late = asyncio.run(latency(server, arguments.changes, objects, kinds))
        server.stop()
        figures["latency_ms"] = {
            f"change to its {what}, {name}": value
            for what, values in late.items()
            for name, value in (
                ("median", statistics.median(values)),
                ("95 of 100 below", sorted(values)[len(values) * 95 // 100]),
                ("longest", max(values)),
            )
        }
    if arguments.json:
        print(json.dumps(figures))
        return
    for group, values in figures.items():
        for name, value in values.items():
            print(f"{group}: {name}: {value:.1f}")


if __name__ == "__main__":
    main()
