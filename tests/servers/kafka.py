"""A real Apache Kafka: one node, KRaft, its jars from Maven Central, kept in a cache."""

from __future__ import annotations

import gc
import hashlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.ports import free_port
from tests.servers.kept import kept

KAFKA_VERSION = "4.1.0"
_START_S = 60.0
_ARCHIVE = "classes.jsa"

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>tests</groupId><artifactId>kafka</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>
<version>{KAFKA_VERSION}</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId>
<version>1.7.36</version></dependency>
</dependencies></project>
"""


def find_jars(find: Callable[..., str]) -> Path:
    """Return the folder of Kafka's jars, fetched once."""

    def fetch(folder: Path) -> None:
        maven = find("mvn", package="maven")
        (folder / "pom.xml").write_text(_POM)
        goal = ["dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
        done = subprocess.run(
            [maven, "-q", "-B", *goal], cwd=folder, capture_output=True, text=True, timeout=600
        )
        if done.returncode != 0:
            missing(f"Kafka's jars could not be fetched: {done.stdout[-300:]}")

    return kept(f"kafka-{KAFKA_VERSION}", fetch)


class Kafka:
    """A broker that can be stopped, killed and started again with what it had.

    ``advertised`` is the address that clients are sent to, where a proxy stands before it.
    """

    def __init__(
        self,
        java: str,
        jars: Path,
        directory: Path,
        *,
        advertised: int | None = None,
        core: int | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        # "{port}" and "{controller}" in them are the listeners' ports.
        self._more_properties = properties or {}
        self._pinned = [] if core is None else ["taskset", "-c", str(core)]
        self._java = java
        self._jars = jars
        self._directory = directory
        self.port = free_port()
        self._controller = free_port()
        self._advertised = advertised or self.port
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self._config = directory / "server.properties"
        self._config.write_text(self._properties())
        self._prepare()

    def _prepare(self) -> None:
        prepared = _prepared(self._java, self._jars)
        self._archive = f"-XX:SharedArchiveFile={prepared / _ARCHIVE}"
        data = shutil.copytree(prepared / "data", self._directory / "data")
        meta = data / "meta.properties"
        meta.write_text(re.sub("cluster.id=.*", f"cluster.id={_cluster_id()}", meta.read_text()))

    @property
    def pid(self) -> int:
        """The process, while it runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self._advertised}"

    def _properties(self) -> str:
        lines = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self._controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self._advertised}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(self._directory / "data"),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "3",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "auto.create.topics.enable": "false",
            "log.cleaner.enable": "false",
        }
        for key, value in self._more_properties.items():
            ports = {"{port}": str(self.port), "{controller}": str(self._controller)}
            for name, port in ports.items():
                value = value.replace(name, port)  # noqa: PLW2901
            lines[key] = value
        return "".join(f"{key}={value}\n" for key, value in lines.items())

    def _command(self, main: str, *arguments: str) -> list[str]:
        return [
            *self._pinned, self._java, "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            self._archive, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-cp", f"{self._jars}/*", main, *arguments,
        ]  # fmt: skip

    def start(self) -> None:
        """Start the broker, and return when it answers."""
        log = (self._directory / "kafka.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                self._command("kafka.Kafka", str(self._config)), stdout=log, stderr=log
            )
        until = time.monotonic() + _START_S
        while True:
            assert self._process.poll() is None, (self._directory / "kafka.log").read_text()[-2000:]
            assert time.monotonic() < until, "Kafka does not start"
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)

    def kill(self) -> None:
        """Kill it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def pause(self) -> None:
        """Let it hang: connections stay, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


class _First(Kafka):
    """A broker whose storage and classes the others start with."""

    def _prepare(self) -> None:
        self._archive = "-Xshare:auto"
        arguments = ("format", "-t", _cluster_id(), "-c", str(self._config))
        command = self._command("kafka.tools.StorageTool", *arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr

    def archive(self, file: Path) -> None:
        """Run it once, and write the classes that it loads into a file."""
        self._archive = f"-XX:ArchiveClassesAtExit={file}"
        self.start()
        assert self._process is not None
        self._process.terminate()
        self._process.wait(60)


def _prepared(java: str, jars: Path) -> Path:
    """Return a folder with formatted storage and an archive of the classes, made once.

    To format, and to load and verify classes, is most of what a start costs.
    """
    program = Path(java).resolve()
    made_by = hashlib.sha256(f"{program}{program.stat().st_mtime_ns}".encode()).hexdigest()

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            first = _First(java, jars, Path(scratch))
            shutil.copytree(Path(scratch) / "data", folder / "data")
            first.archive(folder / _ARCHIVE)

    return kept(f"kafka-{KAFKA_VERSION}-{made_by[:8]}", make)


def _cluster_id() -> str:
    return str(uuid.uuid4()).replace("-", "")[:22]


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a bus keeps its spool. What its client leaves to the collector goes with the test."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    yield tmp_path
    # here, where it is expected, and not in another module's test
    gc.collect()


@pytest.fixture
def topic() -> str:
    """Return the name of a topic that no other test has."""
    return f"topic-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def make_kafka(
    program: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Kafka]]:
    """Return a function that makes and starts brokers; they end with the session."""
    brokers: list[Kafka] = []

    def make(
        *, advertised: int | None = None, properties: Mapping[str, str] | None = None
    ) -> Kafka:
        java = program("java", package="default-jre-headless")
        directory = tmp_path_factory.mktemp("kafka")
        broker = Kafka(
            java, find_jars(program), directory, advertised=advertised, properties=properties
        )
        brokers.append(broker)
        broker.start()
        return broker

    yield make
    for broker in brokers:
        broker.kill()


@pytest.fixture(scope="session")
def kafka(make_kafka: Callable[..., Kafka]) -> Kafka:
    """One broker for all tests that leave it as they found it (topics are named apart)."""
    return make_kafka()
