"""Everything of a run: servers, the network before them, daemons with all parts on, the loads."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from monitor.store import DatabaseSettings, open_store
from monitor.tokens import Role, create_token
from tests.aggregation.producers import PARTITIONS, Producers
from tests.chaos.alert_load import AlertLoad
from tests.chaos.clock import Clock, build_clock
from tests.chaos.cluster_load import ClusterLoad
from tests.chaos.log_load import Instance, LogLoad
from tests.chaos.probe_load import ProbeLoad
from tests.chaos.relay_load import RelayLoad
from tests.chaos.service import Service
from tests.chaos.tables import Tables
from tests.cluster.conftest import write_kubeconfig
from tests.ports import free_port
from tests.relay.proxy import CuttingProxy
from tests.servers.cut import CutProxy
from tests.servers.kafka import Kafka, find_jars
from tests.servers.kubernetes import KubernetesServer
from tests.servers.postgres import PostgresServer, find_programs

__all__ = ["Stage", "StageError"]

_DISK = "48m"
_LOG_DISK = "32m"
_KINDS = ["Deployment", "Pod"]
_LONG_S = 14 * 86400.0


class StageError(Exception):
    """This machine lacks what a run needs."""


class Stage:
    """What a run is played on; :meth:`close` takes all of it down, in any state."""

    def __init__(self, directory: Path, *, seed: int, variant: str, private: bool) -> None:
        self.directory = directory
        self.seed = seed
        self.servers = servers = variant == "servers"
        """Whether there are PostgreSQL and Kafka, and a second daemon that shares them."""
        self.units = variant == "units"
        """Whether a second daemon shares the first one's state, and has some of the parts."""
        self.private = private
        """Whether this process may mount file systems, which go with it."""
        self.held = contextlib.ExitStack()
        self.secrets: list[str] = []
        self.abilities: set[str] = {"servers"} if servers else set()
        self.missing: list[str] = []
        self.kafka: Kafka | None = None
        self.postgres: PostgresServer | None = None
        self.producers: Producers | None = None
        self.services: list[Service] = []
        self.clocks: dict[str, Clock] = {}
        self._library = self._build_clock()
        self.kafka_way = self._way()
        self.postgres_way = self._way()
        self.kubernetes_way = self._way()
        self.broker_way = self._way()
        self.upload_ways: list[CutProxy] = []
        self.kubernetes = KubernetesServer()
        self.held.callback(self.kubernetes.stop)
        self.kubernetes.bookmark_every_s = 1.0
        self.kubernetes_way.target = self.kubernetes.port

    # Setting it up.

    def _way(self, target: int = 0) -> CutProxy:
        way = CutProxy(target)
        self.held.callback(way.close)
        return way

    def _build_clock(self) -> Path | None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            self.missing.append(
                "no C compiler (Debian packages gcc, libc6-dev): clocks do not jump"
            )
            return None
        self.abilities.add("clock")
        return build_clock(compiler, self.directory)

    def secret(self, name: str) -> str:
        """Return a new secret that must never be seen in a log."""
        made = f"{name}-{secrets.token_hex(12)}"
        self.secrets.append(made)
        return made

    def disk(self, name: str, size: str) -> Path:
        """Return a folder, on a small file system of its own where that is possible."""
        folder = self.directory / name
        folder.mkdir(parents=True)
        if self.private:
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "chaos", str(folder)],
                check=True,
            )
            self.abilities.add("disk")
        return folder

    def start_servers(self) -> None:
        """Start PostgreSQL and Kafka; to be called by the thread that lives longest."""
        if not self.servers:
            return
        programs = find_programs()
        java = shutil.which("java")
        if programs is None or java is None:
            raise StageError("PostgreSQL and Java are needed: run tests/install-servers")
        settings = {"fsync": "off", "max_connections": "100", "shared_buffers": "64MB"}
        self.postgres = PostgresServer(programs, settings=settings)
        self.held.callback(self.postgres.remove)
        self.postgres.start()
        self.postgres_way.target = self.postgres.port
        self.database = self.postgres.create_database()
        asyncio.run(self._migrate())

        def find(*names: str, package: str) -> str:
            found = next(filter(None, map(shutil.which, names)), None)
            if found is None:
                raise StageError(f"{names[0]} is not installed (Debian package {package})")
            return found

        self.kafka = Kafka(
            java, find_jars(find), self.directory / "kafka", advertised=self.kafka_way.port
        )
        self.held.callback(self.kafka.kill)
        self.kafka.start()
        self.kafka_way.target = self.kafka.port

    async def _migrate(self) -> None:
        store = open_store(DatabaseSettings(url=self.database_url))
        await store.migrate()
        await store.close()

    @property
    def database_url(self) -> str:
        """The database's own address, past the network."""
        assert self.postgres is not None
        return self.postgres.url(self.database)

    @property
    def bootstrap(self) -> str:
        """Kafka's address."""
        return f"127.0.0.1:{self.kafka_way.port}"

    # The daemons.

    def prepare(self) -> None:
        """Make the loads' outer ends and the daemons' configs; start nothing."""
        self.probes = ProbeLoad(secret=self.secret("site"))
        self.held.callback(self.probes.close)
        self.alerts = AlertLoad(self.seed)
        self.held.callback(self.alerts.close)
        tokens = self.directory / "tokens.yml"
        self.admin = create_token(tokens, "chaos", Role.ADMIN)
        self.secrets.append(self.admin)
        self.password = self.directory / "password"
        self.password.write_text(self.secret("password"))
        kubeconfig = write_kubeconfig(
            self.directory / "kubeconfig", self.kubernetes, token=self.secret("kubernetes")
        )
        kubeconfig.write_text(
            kubeconfig.read_text().replace(str(self.kubernetes.port), str(self.kubernetes_way.port))
        )
        self.websocket_port, self.zeromq_port = free_port(), free_port()
        self.logs_zeromq_port = free_port()
        self.readers_way = CuttingProxy(self.websocket_port, seed=self.seed)
        self.held.callback(self.readers_way.close)
        self.broker_way.target = self.zeromq_port
        first = {
            "websocket_uri": ["127.0.0.1", self.websocket_port],
            "zeromq_uri": ["127.0.0.1", self.zeromq_port],
            "relay": {
                "history_file": "history.db",
                "keep_finished": _LONG_S,
                "keep_idle": _LONG_S,
                "client_stall": 5,
            },
            "probes": {"jobs": self.jobs()},
            "cluster": {
                "name": "chaos",
                "kinds": _KINDS,
                "kubeconfig": str(kubeconfig),
            },
            "api": self._api(tokens),
            **self._bus(),
        }
        rest = self._rest()
        zeromq = ["127.0.0.1", self.logs_zeromq_port]
        with_zeromq = {**rest, "logs": {**rest["logs"], "zeromq_uri": zeromq}}
        self.add_service("one", first if self.units else {**first, **with_zeromq})
        if self.servers or self.units:
            second = {"relay": False, "api": self._api(tokens), **self._bus()}
            if self.units:
                self.add_service("two", {**second, **with_zeromq}, state=self.services[0].state)
                # Both would end by themselves.
                self.abilities.discard("disk")
            else:
                self.add_service("two", {**second, **rest})

    def jobs(self, *, active: bool = True) -> list[dict[str, Any]]:
        """Return all jobs."""
        return [*self.probes.jobs(active=active), *self.alerts.jobs(active=active)]

    def _rest(self) -> dict[str, Any]:
        return {
            "alerts": self.alerts.config(),
            "aggregation": {"flush_interval": 0.5, "flush_messages": 500},
            "logs": {"timewindow": _LONG_S, "cleanup_interval": 2},
        }

    def _bus(self) -> dict[str, Any]:
        shared: dict[str, Any] = {"bus": {"max_bytes": 24 << 20}}
        if self.servers:
            shared["kafka"] = {"bootstrap_servers": [self.bootstrap], "partitions": PARTITIONS}
            shared["database"] = {
                "url": f"postgresql://postgres@127.0.0.1:{self.postgres_way.port}/{self.database}",
                "password_file": str(self.password),
                "connect_timeout": 2,
            }
        return shared

    def _api(self, tokens: Path) -> dict[str, Any]:
        port = free_port()
        self.upload_ways.append(self._way(port))
        return {"uri": ["127.0.0.1", port], "tokens_file": str(tokens)}

    def add_service(self, name: str, config: dict[str, Any], *, state: Path | None = None) -> None:
        state = state or self.disk(f"{name}/state", _DISK)
        log = self.disk(f"{name}/log", _LOG_DISK)
        clock = self.clocks[name] = Clock(self._library, self.directory / f"{name}.clock")
        logger = {"file": str(log / "monitor.log"), "level": "info"}
        self.services.append(
            Service(
                name,
                self.directory / name,
                {"logger": {**logger, "max-size": 1 << 20, "rotations": 20}, **config},
                state=state,
                environ=clock.environ,
            )
        )

    def start_daemons(self) -> None:
        """Start them, and wait until they are ready."""
        for service in self.services:
            self.held.callback(service.close)
            service.start()

    def begun(self) -> bool:
        """Return whether what happens from now on is judged and told."""
        return self.tables.begun(partitions=PARTITIONS if self.servers else 1, kinds=len(_KINDS))

    # The loads.

    def make_loads(self) -> None:
        """Make what keeps the daemons busy; start nothing."""
        seed = self.seed
        one = self.services[0]
        self.tables = Tables(self.database_url if self.servers else None, one.state / "monitor.db")
        self.relay = RelayLoad(
            seed,
            broker_url=f"tcp://127.0.0.1:{self.broker_way.port}",
            url=f"ws://127.0.0.1:{self.readers_way.port}/",
            readers=(12, 6),
        )
        websockets = [
            Instance(f"ws://127.0.0.1:{way.port}/ws", self.clocks[service.name].now, self.admin)
            for service, way in zip(self.services, self.upload_ways, strict=True)
            if "logs" in service.config
        ]
        zeromq = f"tcp://127.0.0.1:{self.logs_zeromq_port}"
        zeromqs = [Instance(zeromq, websockets[0].now, self.admin)]
        self.logs = LogLoad(seed, websockets=websockets, zeromqs=zeromqs, pace_s=0.2)
        self.cluster = ClusterLoad(seed, self.kubernetes, self.tables.told)
        if self.servers:
            self.producers = Producers(self.bootstrap, seed, first_job=1001)

    def close(self) -> None:
        """Take everything down; safe to call in any state."""
        self.held.close()

    # What the faults and the judgement need.

    def service(self, name: str) -> Service:
        return next(service for service in self.services if service.name == name)

    @contextlib.contextmanager
    def full(self, folder: Path, service: Service, *, fatal: bool) -> Iterator[None]:
        """Fill a small disk to its last byte for a while."""
        filler = folder / "filler"
        if fatal:
            service.full.set()
        try:
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                for size in (1 << 16, 4096, 512, 1):
                    with contextlib.suppress(OSError):
                        while file.write(bytes(size)):
                            pass
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):
                filler.unlink()
            if fatal:
                # What it ended with while there was no space is its service manager's business.
                with service.standing():
                    service.full.clear()

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield name and text of everything that the daemons wrote for people."""
        for service in self.services:
            for file in sorted((self.directory / service.name / "log").glob("monitor.log*")):
                yield f"{service.name}/{file.name}", file.read_text(errors="replace")
            stderr = self.directory / service.name / "stderr"
            yield f"{service.name}/stderr", stderr.read_text(errors="replace")


Progress = Callable[[str], None]
