"""What a whole installation has around it, reachable from a machine: Kafka, PostgreSQL, a
Kubernetes API, a site to check, a broker, and whoever asks the API."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests
import zmq
from kafka import KafkaConsumer, TopicPartition
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.cluster.plays import DeploymentPlay, Step
from tests.distro.peers import WEBSOCKET_PORT, ZEROMQ_PORT
from tests.ports import free_port
from tests.relay.recovering import one_by_one
from tests.servers.cut import CutProxy
from tests.servers.debian import Machine
from tests.servers.kafka import Kafka
from tests.servers.kubernetes import KubernetesServer
from tests.servers.postgres import PostgresServer
from tests.waiting import wait_for

__all__ = ["PASSWORD", "RESULTS", "TOKEN", "Around", "RouterBroker", "around", "reading"]

RESULTS = "website_availability"
# What must be seen nowhere.
PASSWORD = "the-database's-own-secret"
TOKEN = "the-cluster's-own-secret"
_SCHEMA = "website_availability"
_LIMIT_S = 20


@dataclass
class Around:
    """The servers, as the machine finds them."""

    machine: Machine
    bootstrap: str
    kafka: Kafka
    postgres: PostgresServer
    database: str
    database_url: str
    kubernetes: KubernetesServer
    kubernetes_url: str
    site: str
    token: str = ""
    plays: dict[str, DeploymentPlay] = field(default_factory=dict)

    # Kubernetes

    def play(self, steps: Iterator[Step]) -> None:
        """Write what the controllers write."""
        for step in steps:
            for write in step:
                if write.item is None:
                    self.kubernetes.delete(write.plural, write.namespace, write.name)
                else:
                    self.kubernetes.write(write.plural, write.item)

    def deploy(self, name: str, image: str, *, namespace: str = "models") -> None:
        """Roll out a model's first version, or the next one."""
        play = self.plays.get(name)
        if play is None:
            play = self.plays[name] = DeploymentPlay(name, namespace)
            self.play(play.create(image))
        else:
            self.play(play.set_image(image))

    def kubeconfig(self) -> str:
        """Return a kubeconfig that leads to the API."""
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                "clusters": [{"name": "test", "cluster": {"server": self.kubernetes_url}}],
                "users": [{"name": "test", "user": {"token": TOKEN}}],
            }
        )

    # The database, and the bus

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the database; tables by their names."""
        return self.postgres.execute(f"SET search_path = {_SCHEMA}; {sql}", self.database)

    def stored(self) -> set[tuple[int, float]]:
        """Return the results that the database has, each with its one name."""
        found = self.rows("SELECT job_id, scheduled_at FROM availability_result")
        results = {(job, at) for job, at in found}
        assert len(results) == len(found)
        return results

    def published(self) -> set[tuple[int, float]]:
        """Return the results that Kafka has."""
        consumer = KafkaConsumer(bootstrap_servers=self.kafka.bootstrap, consumer_timeout_ms=10_000)
        with contextlib.closing(consumer):
            partitions = consumer.partitions_for_topic(RESULTS) or set()
            places = [TopicPartition(RESULTS, partition) for partition in sorted(partitions)]
            consumer.assign(places)
            consumer.seek_to_beginning(*places)
            left = {place: end for place, end in consumer.end_offsets(places).items() if end}
            found = set()
            while left:
                for place, messages in consumer.poll(timeout_ms=1000).items():
                    for message in messages:
                        result = json.loads(message.value)
                        found.add((result["job_id"], result["scheduled_at"]))
                        if message.offset + 1 >= left.get(place, 0):
                            left.pop(place, None)
        return found

    # The API

    def api(self, path: str, *, token: str | None = None, **query: Any) -> requests.Response:
        """Ask the daemon's API from outside."""
        return requests.get(
            f"http://{self.machine.address}:9000{path}",
            headers={"authorization": f"Bearer {token or self.token}"},
            params=query,
            timeout=_LIMIT_S,
        )

    def items(self, path: str, **query: Any) -> list[dict[str, Any]]:
        """Return a list of the API's."""
        answer = self.api(path, **query)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["logs" if path == "/log" else "items"]
        return found

    def upload(self, *entries: Mapping[str, Any], port: int = 9000, **more: Any) -> dict[str, Any]:
        """Upload log entries and return the answer."""
        headers = {"authorization": f"Bearer {self.token}"}
        url = f"ws://{self.machine.address}:{port}/ws"
        with connect(url, additional_headers=headers, open_timeout=_LIMIT_S) as client:
            client.send(json.dumps({"action": "uploadLogs", "logs": entries, **more}))
            answer: dict[str, Any] = json.loads(client.recv(timeout=_LIMIT_S))
            return answer


class RouterBroker:
    """A broker's socket, a ROUTER as in ReCodEx, that keeps nothing for a relay that is away."""

    def __init__(self, machine: Machine) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 5000
        self._socket.set(zmq.RECONNECT_IVL, 20)
        self._socket.set(zmq.IMMEDIATE, 1)
        self._socket.connect(f"tcp://{machine.address}:{ZEROMQ_PORT}")
        # The relay never says anything; that it is there is known when it can be addressed.
        self._socket.set(zmq.ROUTER_MANDATORY, 1)

    def send(self, *frames: str) -> bool:
        """Send channel, command and so on; False where no relay is there, and it is lost."""
        try:
            self._socket.send_multipart(
                [b"recodex-monitor", *(each.encode() for each in frames)], zmq.NOBLOCK
            )
        except zmq.ZMQError as error:
            assert error.errno in {zmq.EHOSTUNREACH, zmq.EAGAIN}
            return False
        return True

    def send_when_there(self, *frames: str) -> None:
        """Send once a relay is connected."""
        wait_for(lambda: self.send(*frames), "a relay to send to")

    def close(self) -> None:
        """Let go of the socket."""
        self._context.destroy()


class RecoveringReader:
    """A client of the recovering protocol on an open connection."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self._rest: list[dict[str, Any]] = []

    def receive(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the next message that is wanted."""
        while True:
            if not self._rest:
                self._rest = one_by_one(json.loads(self.connection.recv(timeout=_LIMIT_S)))
            message = self._rest.pop(0)
            if wanted(message):
                return message

    def subscribe(self, channel: str, after: tuple[str, int] | None = None) -> dict[str, Any]:
        """Subscribe and return the answer."""
        how = {} if after is None else {"after": {"epoch": after[0], "seq": after[1]}}
        self.connection.send(json.dumps({"type": "subscribe", "channel": channel, **how}))
        return self.receive(lambda message: message["type"] == "subscribed")

    def next_of(self, channel: str) -> dict[str, Any]:
        """Return the channel's next message or notice."""
        return self.receive(lambda message: message.get("channel") == channel)


@contextlib.contextmanager
def reading(machine: Machine) -> Iterator[RecoveringReader]:
    """Connect with the recovering protocol, from outside."""
    url = f"ws://{machine.address}:{WEBSOCKET_PORT}/"
    protocols = [Subprotocol("recodex.monitor.v2")]
    with connect(url, subprotocols=protocols, open_timeout=_LIMIT_S) as connection:
        yield RecoveringReader(connection)


class _Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def around(
    debian: Machine, make_kafka: Callable[..., Kafka], postgres: PostgresServer
) -> Iterator[Around]:
    """Start all of it; PostgreSQL is there already, and its database gets no tables yet."""
    host = debian.host_address
    with contextlib.ExitStack() as held:
        port = free_port()
        kafka = make_kafka(
            properties={
                "listeners": "PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},"
                f"MACHINE://{host}:{port}",
                "advertised.listeners": f"PLAINTEXT://127.0.0.1:{{port}},MACHINE://{host}:{port}",
                "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,MACHINE:PLAINTEXT,"
                "CONTROLLER:PLAINTEXT",
            }
        )
        held.callback(kafka.kill)
        kubernetes = KubernetesServer()
        kubernetes.tokens = {TOKEN}
        held.callback(kubernetes.stop)
        proxies = [CutProxy(each, host=host) for each in (postgres.port, kubernetes.port)]
        for proxy in proxies:
            held.callback(proxy.close)
        site = held.enter_context(ThreadingHTTPServer((host, 0), _Site))
        thread = threading.Thread(target=site.serve_forever, daemon=True)
        thread.start()
        held.callback(thread.join)
        held.callback(site.shutdown)
        database = postgres.create_database()
        yield Around(
            machine=debian,
            bootstrap=f"{host}:{port}",
            kafka=kafka,
            postgres=postgres,
            database=database,
            database_url=f"postgresql://postgres@{host}:{proxies[0].port}/{database}",
            kubernetes=kubernetes,
            kubernetes_url=f"http://{host}:{proxies[1].port}",
            site=f"http://{host}:{site.server_port}/",
        )
