"""Kafka that denies, demands tokens, cannot be reached or lies: the state names it."""

from __future__ import annotations

import asyncio
import base64
import http.server
import json
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from kafka.admin import ACL, ACLOperation, ACLPermissionType, KafkaAdminClient, ResourcePattern
from kafka.admin import ResourceType as Kind

from monitor.bus import Bus, KafkaSettings
from monitor.errors import SettingError
from tests.bus.kafka_steps import create_topic, make, take
from tests.ports import free_port
from tests.servers.kafka import Kafka
from tests.waiting import LIMIT_S, until

integration_test = pytest.mark.integration_test
pytestmark = [
    pytest.mark.usefixtures("state"),
    # kafka-python leaves the sockets of attempts that failed to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


class Guarded:
    """A broker with a listener for us, which asks who we are, and one for the test."""

    def __init__(self, make_kafka: Callable[..., Kafka]) -> None:
        self.port = free_port()
        plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        oauth = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required"
        mine = "listener.name.guarded"
        listeners = f"PLAINTEXT://127.0.0.1:{{port}},GUARDED://127.0.0.1:{self.port}"
        self.broker = make_kafka(
            properties={
                "listeners": f"{listeners},CONTROLLER://127.0.0.1:{{controller}}",
                "advertised.listeners": listeners,
                "listener.security.protocol.map": (
                    "PLAINTEXT:PLAINTEXT,GUARDED:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT"
                ),
                f"{mine}.sasl.enabled.mechanisms": "PLAIN,OAUTHBEARER",
                f"{mine}.plain.sasl.jaas.config": f'{plain} user_monitor="s3cret";',
                f"{mine}.oauthbearer.sasl.jaas.config": (
                    f'{oauth} unsecuredLoginStringClaim_sub="broker";'
                ),
                f"{mine}.oauthbearer.sasl.login.callback.handler.class": (
                    "org.apache.kafka.common.security.oauthbearer.internals.unsecured."
                    "OAuthBearerUnsecuredLoginCallbackHandler"
                ),
                f"{mine}.oauthbearer.sasl.server.callback.handler.class": (
                    "org.apache.kafka.common.security.oauthbearer.internals.unsecured."
                    "OAuthBearerUnsecuredValidatorCallbackHandler"
                ),
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                # Who comes without a name is the test and the broker itself.
                "super.users": "User:ANONYMOUS",
            }
        )
        self.open = self.broker.bootstrap
        self.guarded = f"127.0.0.1:{self.port}"

    def bus(self, password: Path, **options: Any) -> Bus:
        password.write_text("s3cret\n")
        return make(
            self.guarded,
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="PLAIN",
            sasl_plain_username="monitor",
            sasl_plain_password_file=str(password),
            **options,
        )

    def allow(self, kind: Kind, name: str, operation: ACLOperation, *, user: str) -> None:
        with self._admin() as admin:
            admin.create_acls([self._acl(kind, name, operation, user)])

    def forbid(self, kind: Kind, name: str, operation: ACLOperation, *, user: str) -> None:
        with self._admin() as admin:
            admin.delete_acls([self._acl(kind, name, operation, user)])

    def _admin(self) -> Any:
        return KafkaAdminClient(bootstrap_servers=self.open)

    def _acl(self, kind: Kind, name: str, operation: ACLOperation, user: str) -> ACL:
        return ACL(
            principal=f"User:{user}",
            host="*",
            operation=operation,
            permission_type=ACLPermissionType.ALLOW,
            resource_pattern=ResourcePattern(kind, name),
        )


@pytest.fixture(scope="module")
def guarded(make_kafka: Callable[..., Kafka]) -> Iterator[Guarded]:
    found = Guarded(make_kafka)
    yield found
    found.broker.kill()


@integration_test
async def test_a_topic_that_is_denied_waits_alone_and_sends_nothing_of_another_again(
    guarded: Guarded, topic: str, tmp_path: Path
) -> None:
    denied = f"denied-{topic}"
    for name in (topic, denied):
        create_topic(guarded.open, name)
    for operation in (ACLOperation.WRITE, ACLOperation.READ):
        guarded.allow(Kind.TOPIC, topic, operation, user="monitor")
    guarded.allow(Kind.TOPIC, denied, ACLOperation.DESCRIBE, user="monitor")
    bus = guarded.bus(tmp_path / "password")
    await bus.start()
    for number in range(248):
        bus.publish((topic, denied)[number % 4 == 0], value=b"%d" % number, key="k", headers={})
    await until(lambda: f"topic {denied}: not authorized" in bus.state().summary)
    for number in range(248, 300):
        bus.publish(topic, value=b"%d" % number, key="k", headers={})
    look = make(guarded.open).consumer(topic, group=None)
    wanted = [number for number in range(300) if number >= 248 or number % 4]
    assert [int(record.value) for record in await take(look, len(wanted))] == wanted
    assert f"topic {topic}:" not in bus.state().summary
    guarded.allow(Kind.TOPIC, denied, ACLOperation.WRITE, user="monitor")
    late = make(guarded.open).consumer(denied, group=None)
    assert [int(record.value) for record in await take(late, 62)] == list(range(0, 248, 4))
    await until(lambda: bus.state().health == "ok")
    # Nothing came twice.
    assert await look.poll(timeout_s=0.2) == []
    for consumer in (look, late):
        await consumer.close()
    await bus.close()


@integration_test
async def test_a_consumer_that_is_denied_names_topic_or_group_and_goes_on_once_it_may(
    guarded: Guarded, topic: str, tmp_path: Path
) -> None:
    create_topic(guarded.open, topic)
    bus = guarded.bus(tmp_path / "password")
    consumer = bus.consumer(topic, group="group-" + topic)

    async def poll_until(text: str) -> None:
        async with asyncio.timeout(60):
            while text not in bus.state().summary:
                await consumer.poll(timeout_s=0.2)

    await poll_until(f"topic {topic}: not authorized")
    guarded.allow(Kind.TOPIC, topic, ACLOperation.READ, user="monitor")
    await poll_until("not authorized for the group")
    guarded.allow(Kind.GROUP, "group-" + topic, ACLOperation.READ, user="monitor")
    other = make(guarded.open)
    await other.start()
    other.publish(topic, value=b"1", key=None, headers={})
    assert [record.value for record in await take(consumer, 1)] == [b"1"]
    assert bus.state().health == "ok"
    guarded.forbid(Kind.TOPIC, topic, ACLOperation.READ, user="monitor")
    await poll_until("not authorized")
    await consumer.close()
    await other.close()


def token(user: str) -> str:
    """Return a token of the broker's unsecured kind."""
    now = time.time()

    def part(content: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    claims = {"sub": user, "iat": int(now) - 60, "exp": int(now) + 3600, "scope": "kafka"}
    return f"{part({'alg': 'none'})}.{part(claims)}."


class TokenEndpoint(http.server.ThreadingHTTPServer):
    """Gives a token for the client's credentials, or what a test sets."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _TokenHandler)
        self.asked: list[tuple[str, dict[str, list[str]]]] = []
        self.answer: tuple[int, bytes] = (200, b"{}")
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/token"


class _TokenHandler(http.server.BaseHTTPRequestHandler):
    server: TokenEndpoint

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
        self.server.asked.append((self.headers["authorization"], form))
        status, body = self.server.answer
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[TokenEndpoint]:
    server = TokenEndpoint()
    yield server
    server.shutdown()
    server.server_close()


@integration_test
@pytest.mark.parametrize("source", ["file", "endpoint"])
async def test_oauthbearer_with_a_token_from_a_file_or_an_endpoint(
    guarded: Guarded,
    tmp_path: Path,
    endpoint: TokenEndpoint,
    caplog: pytest.LogCaptureFixture,
    source: str,
) -> None:
    topic = f"tokens-from-{source}"
    create_topic(guarded.open, topic)
    user = f"user-{topic}"
    for operation in (ACLOperation.WRITE, ACLOperation.READ):
        guarded.allow(Kind.TOPIC, topic, operation, user=user)
    options: dict[str, Any] = {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "OAUTHBEARER",
    }
    mine = token(user)
    if source == "file":
        (tmp_path / "token").write_text(mine + "\n")
        options["sasl_oauthbearer_token_file"] = str(tmp_path / "token")
    else:
        (tmp_path / "secret").write_text("s3cret/+\n")
        endpoint.answer = (503, b"busy")
        options |= {
            "sasl_oauthbearer_token_endpoint_url": endpoint.url,
            "sasl_oauthbearer_client_id": "monitor",
            "sasl_oauthbearer_client_secret_file": str(tmp_path / "secret"),
            "sasl_oauthbearer_scope": "kafka",
        }
    bus = make(guarded.guarded, **options)
    await bus.start()
    bus.publish(topic, value=b"1", key=None, headers={})
    if source == "endpoint":
        await until(lambda: f"{endpoint.url}: HTTP status 503" in bus.state().summary)
        endpoint.answer = (200, json.dumps({"access_token": mine, "expires_in": 600}).encode())
    consumer = bus.consumer(topic, group=None)
    assert [record.value for record in await take(consumer, 1)] == [b"1"]
    await until(lambda: bus.state().health == "ok")
    await consumer.close()
    await bus.close()
    if source == "endpoint":
        credentials = "Basic " + base64.b64encode(b"monitor:s3cret%2F%2B").decode()
        form = {"grant_type": ["client_credentials"], "scope": ["kafka"]}
        assert {text for text, _ in endpoint.asked} == {credentials}
        assert all(asked == form for _, asked in endpoint.asked)
    for secret in ("s3cret", mine):
        assert secret not in caplog.text


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "sasl_oauthbearer_token_file: OAUTHBEARER needs exactly one of this"),
        ({"sasl_oauthbearer_token_endpoint_url": "https://id.example.org/"}, "client_id: is requ"),
        ({"sasl_oauthbearer_token_endpoint_url": "http://id.example.org/"}, "must be https://"),
        ({"sasl_oauthbearer_token_endpoint_url": "ftp://[/"}, "must be an https:// URL"),
        ({"sasl_mechanism": "GSSAPI"}, "sasl_mechanism: must be one of PLAIN, SCRAM-SHA-256"),
    ],
)
def test_settings_of_a_mechanism_that_cannot_work_are_refused(
    options: dict[str, Any], problem: str
) -> None:
    settings = KafkaSettings(
        **{"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"} | options
    )
    with pytest.raises(SettingError, match=problem.replace("(", r"\(")):
        settings.verify()


async def refused(server: str) -> str:
    """Return how the state names what is wrong with a server."""
    bus = make(server)
    consumer = bus.consumer("t", group=None)
    async with asyncio.timeout(60):
        while bus.state().health != "degraded":
            await consumer.poll(timeout_s=0.1)
    summary = bus.state().summary
    await consumer.close()
    return summary


async def test_an_unknown_host_and_a_refused_connection_are_told_apart() -> None:
    port = free_port()
    assert f"127.0.0.1:{port}: connection refused" in await refused(f"127.0.0.1:{port}")
    summary = await refused("kafka.invalid:9092")
    assert "kafka.invalid:9092: the host name does not resolve" in summary


@integration_test
@pytest.mark.parametrize(
    ("advertised", "problem"),
    [("kafka.invalid:9092", "does not resolve"), ("127.0.0.1:1", "connection refused")],
)
async def test_an_advertised_listener_that_does_not_work_is_named(
    make_kafka: Callable[..., Kafka], advertised: str, problem: str
) -> None:
    broker = make_kafka(properties={"advertised.listeners": f"PLAINTEXT://{advertised}"})
    summary = await refused(f"127.0.0.1:{broker.port}")
    broker.kill()
    assert f"advertises broker 1 as {advertised}" in summary
    assert problem in summary


async def test_a_broker_that_announces_gigabytes_costs_no_memory_and_no_threads() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    sent = connections = 0

    def lie() -> None:
        nonlocal sent, connections
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.settimeout(5)
                    if not connection.recv(4096):
                        continue
                    connections += 1
                    connection.sendall((2**31 - 1).to_bytes(4, "big"))
                    for _ in range(2000):
                        connection.sendall(b"\0" * 1_000_000)
                        sent += 1_000_000
                except OSError:
                    continue

    threading.Thread(target=lie, daemon=True).start()
    # The largest that this process was before other tests may hide it: 5 GB more may not.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    threads = set(threading.enumerate())
    bus = make(f"127.0.0.1:{listener.getsockname()[1]}")
    await bus.start()
    bus.publish("t", value=b"1", key=None, headers={})
    consumer = bus.consumer("t", group=None)
    async with asyncio.timeout(LIMIT_S):
        # Those before the last are given up.
        while connections < 3 or bus.state().health != "degraded":
            await consumer.poll(timeout_s=0.1)
    await consumer.close()
    await bus.close()
    listener.close()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000, f"{grown} KiB for {sent} bytes"

    def left() -> list[threading.Thread]:
        new = set(threading.enumerate()) - threads
        return [each for each in new if each.name.startswith("kafka-io")]

    # Nor a thread for each attempt; the last one may be under way yet.
    await until(lambda: not left())
