"""The cluster part on a Kubernetes server, with a real store and a real bus."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import pytest

from monitor.bus import Bus, BusSettings, Record, create_bus
from monitor.cluster.api import SERVICE_ACCOUNT
from monitor.cluster.part import Cluster
from monitor.cluster.settings import ClusterSettings
from monitor.cluster.watch import Timing
from monitor.messages import ModelEvent, decode_model_event
from monitor.part import Health
from monitor.store import DatabaseSettings, Store
from tests.cluster.play import Step
from tests.servers.kubernetes import KubernetesServer
from tests.store.opened import opened
from tests.waiting import until

# As in production, but without its patience.
QUICK = Timing(
    watch_s=20.0, silence_s=25.0, pause_s=0.02, longest_pause_s=0.2, healthy_s=5.0, lasting_s=0.3
)


class HasUrl(Protocol):
    """A Kubernetes API, of whichever kind."""

    @property
    def url(self) -> str: ...


def write_kubeconfig(
    file: Path, server: HasUrl, *, token: str | None = None, certificate: Path | None = None
) -> Path:
    """Write a kubeconfig that leads to the server."""
    user = {"token": token} if token else {}
    cluster = {"server": server.url}
    if certificate is not None:
        cluster["certificate-authority"] = str(certificate)
    file.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                "clusters": [{"name": "test", "cluster": cluster}],
                "users": [{"name": "test", "user": user}],
            }
        )
    )
    return file


class Run:
    """One run of the part; ``records`` has the records of the bus, in order."""

    def __init__(self, part: Cluster, store: Store, bus: Bus) -> None:
        self.part = part
        self.store = store
        self.bus = bus
        self.records: list[Record] = []

    @property
    def events(self) -> list[ModelEvent]:
        return [decode_model_event(record.value) for record in self.records]

    @property
    def told(self) -> list[tuple[str, str, str]]:
        """Return name, last word of the type and cause of each event."""
        return [
            (event.name, record.headers["ce_type"].rpartition(".")[2], event.cause)
            for record, event in zip(self.records, self.events, strict=True)
        ]

    @property
    def ids(self) -> list[str]:
        return [record.headers["ce_id"] for record in self.records]

    async def healthy(self) -> None:
        """Wait until all that is to be watched is watched."""
        await until(lambda: self.part.state().health is Health.OK)

    async def count(self, number: int) -> None:
        """Wait until this many events came, and make sure of the message where they don't."""
        try:
            await until(lambda: len(self.records) >= number)
        except TimeoutError:
            raise AssertionError(f"{number} events wanted, told: {self.told}") from None

    async def collect(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            consumer = self.bus.consumer("model-updates", group=None)
            stack.push_async_callback(consumer.close)
            while True:
                self.records += await consumer.poll(timeout_s=0.2)


class Lab:
    """A server and a directory, in which the part can be run again and again."""

    def __init__(self, server: KubernetesServer, directory: Path) -> None:
        self.server = server
        self.directory = directory
        self.store: Callable[[Store], Store] = lambda store: store
        self.database = DatabaseSettings(file=str(directory / "monitor.db"))

    def play(self, *acts: Iterable[Step]) -> None:
        """Write what the controllers write."""
        for act in acts:
            for step in act:
                self.step(step)

    def step(self, step: Step) -> None:
        for write in step:
            if write.item is None:
                self.server.delete(write.plural, write.namespace, write.name)
            else:
                self.server.write(write.plural, write.item)

    @contextlib.asynccontextmanager
    async def run(
        self,
        *,
        timing: Timing = QUICK,
        token: str | None = None,
        service_account: Path | None = None,
        **settings: Any,
    ) -> AsyncIterator[Run]:
        """Run the part until the end of the context, as the daemon would."""
        kubeconfig = None
        if service_account is None:
            kubeconfig = str(
                write_kubeconfig(self.directory / "kubeconfig", self.server, token=token)
            )
        section = ClusterSettings(
            kubeconfig=kubeconfig, **{"name": "test", "kinds": ("Deployment",), **settings}
        )
        account = service_account or SERVICE_ACCOUNT
        async with (
            opened(self.database) as store,
            run_part(section, self.directory, self.store(store), timing, account) as run,
        ):
            yield run


@contextlib.asynccontextmanager
async def run_part(
    section: ClusterSettings,
    directory: Path,
    store: Store,
    timing: Timing = QUICK,
    service_account: Path = SERVICE_ACCOUNT,
) -> AsyncIterator[Run]:
    """Run the part with a spool in ``directory`` until the end of the context."""
    bus = create_bus(BusSettings(file=str(directory / "spool.db")))
    await bus.start()
    section.verify()
    part = Cluster(section, store=store, bus=bus, timing=timing, service_account=service_account)
    run = Run(part, store, bus)
    tasks: list[asyncio.Task[None]] = []
    try:
        await part.start()
        tasks = [
            asyncio.create_task(part.run(), name="part"),
            asyncio.create_task(run.collect(), name="collect"),
        ]
        yield run
        for task in tasks:
            assert not task.done(), repr(task.exception())
        await part.drain()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await part.close()
        await bus.close()


@pytest.fixture
def lab(kubernetes_server: KubernetesServer, tmp_path: Path) -> Lab:
    return Lab(kubernetes_server, tmp_path)
