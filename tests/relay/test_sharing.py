"""Several relays serve the same channels through a topic of a real Kafka."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from monitor.relay.client_position import Message, Position, Reset
from monitor.relay.protocol_v2 import SUBPROTOCOL
from tests.ports import free_port
from tests.relay.conftest import Relay, everything
from tests.relay.recovering import RecoveringClient, commands
from tests.relay.test_web_servers import HOST, Front, nginx, page
from tests.servers.daemon import StartDaemon
from tests.servers.kafka import Kafka
from tests.waiting import wait_for

pytestmark = pytest.mark.integration_test

StartShared = Callable[..., Relay]
Program = Callable[..., str]


@pytest.fixture
def topic() -> str:
    return f"relay-{uuid4().hex[:8]}"


@pytest.fixture
def start_shared(
    start_daemon: StartDaemon, tmp_path: Path, kafka: Kafka, topic: str
) -> Iterator[StartShared]:
    """Return a function that starts relays of one topic; all but the first have no broker."""
    made: list[Relay] = []

    def start(*, broker: bool = True, server: str = kafka.bootstrap, **settings: Any) -> Relay:
        made.append(
            Relay(
                partial(start_daemon, directory=tmp_path / f"relay{len(made)}"),
                brokers=int(broker),
                sections={"kafka": {"bootstrap_servers": [server]}},
                topic=topic,
                **settings,
            )
        )
        wait_for(made[-1].is_available, "the relay serves")
        return made[-1]

    yield start
    for relay in made:
        relay.close()


def start_again(relay: Relay, start_daemon: StartDaemon) -> None:
    relay.daemon = start_daemon(relay.config, directory=relay.daemon.directory).wait_ready()
    wait_for(relay.is_available, "the relay serves")


def test_other_relays_have_the_same_channels_epochs_and_numbers(start_shared: StartShared) -> None:
    first, second = start_shared(), start_shared(broker=False)
    old, new = second.client("a"), RecoveringClient(second)
    second.wait_subscribed("a")
    waiting = new.subscribe("a")
    for number in range(20):
        first.broker.task("a", number)
    first.broker.send("a", "FINISHED")
    texts, code = everything(old)
    assert code == 1000
    assert texts == everything(first.client("a"))[0]
    assert [json.loads(text).get("task_id") for text in texts] == [
        *(f"t{n}" for n in range(20)),
        None,
    ]
    there = RecoveringClient(first)
    answer = there.subscribe("a")
    assert (answer["seq"], waiting["known"]) == (0, False)
    on = [each for each in new.until_end() if each["type"] != "feed"]
    assert on[0] == {**answer, "recovered": True}
    assert on[1:] == there.until_end()


def test_a_client_resumes_on_another_relay_after_kill(
    start_shared: StartShared, start_daemon: StartDaemon
) -> None:
    first, second = start_shared(), start_shared(broker=False)
    client = RecoveringClient(first)
    begin = client.subscribe("a")
    for number in range(10):
        first.broker.task("a", number)
    got = [client.receive() for _ in range(10)]
    # The others have it once they delivered it.
    there = RecoveringClient(second)
    there.subscribe("a")
    while there.receive().get("seq") != 10:
        pass
    first.daemon.process.kill()
    first.daemon.wait()
    back = RecoveringClient(second)
    assert back.subscribe("a", (got[-1]["epoch"], 10))["recovered"] is True
    old = second.client("a")
    # The broker moves, too.
    broker = second.another_broker()
    broker.task("a", 10)
    broker.send("a", "FINISHED")
    on = [each for each in back.until_end() if each["type"] != "feed"]
    assert on[0]["type"] == "subscribed"
    assert (on[0]["seq"], on[0]["recovered"]) == (10, True)
    assert [each["seq"] for each in on[1:]] == [11, 12, 12]
    assert commands(on) == ["t10", "FINISHED"]
    assert len(everything(old)[0]) == 12
    # The one that was killed has it all again, and tells the same.
    start_again(first, start_daemon)
    again = RecoveringClient(first)
    assert again.subscribe("a", (begin["epoch"], 10))["recovered"] is True
    assert commands(again.until_end()) == ["t10", "FINISHED"]
    assert everything(first.client("a")) == everything(second.client("a"))


def test_readers_of_other_relays_hear_of_a_lost_broker(start_shared: StartShared) -> None:
    first, second = start_shared(), start_shared(broker=False)
    first.broker.task("a", 1)
    wait_for(lambda: RecoveringClient(second).feed["state"] == "up", "the feed is up")
    client = RecoveringClient(second)
    client.subscribe("a")
    while client.receive()["type"] != "message":
        pass
    first.daemon.process.kill()
    while (message := client.receive())["type"] != "feed":
        pass
    assert (message["state"], message["brokers"]) == ("down", 0)
    client.subscribe("a")
    gap = client.receive()
    assert (gap["state"], gap["seq"], gap["until"]) == ("gap", 1, None)


def test_without_kafka_a_relay_serves_its_own_clients(start_shared: StartShared) -> None:
    alone = start_shared(server=f"127.0.0.1:{free_port()}")
    assert "relay.topic: cannot connect to Kafka" in alone.daemon.log
    alone.broker.task("a", 1)
    alone.broker.send("a", "FINISHED")
    assert len(everything(alone.client("a"))[0]) == 2
    wait_for(
        lambda: "relay degraded: relay.topic: cannot connect" in alone.daemon.notices("STATUS")[-1],
        "the status says so",
    )


class Pages(Front):
    """A web server before two relays."""

    relays: tuple[Relay, Relay]

    def adapt(self, text: str) -> str:
        for number, relay in enumerate(self.relays, 1):
            text = text.replace(f"10.0.0.{number}:4567", f"127.0.0.1:{relay.websocket_port}")
        return super().adapt(text)


def test_behind_nginx_one_is_killed(
    start_shared: StartShared, start_daemon: StartDaemon, tmp_path: Path, program: Program
) -> None:
    config = yaml.safe_load(page("relays", "yaml"))
    shared = {key: value for key, value in config["relay"].items() if key != "topic"}
    first, second = start_shared(**shared), start_shared(broker=False, **shared)
    front = Pages(tmp_path, first)
    front.relays = first, second

    def client(*protocols: str) -> ClientConnection:
        made: Any = connect(
            f"wss://{HOST}/ws",
            sock=socket.create_connection(("127.0.0.1", front.port), timeout=60),
            ssl=front.trust,
            subprotocols=[Subprotocol(each) for each in protocols] or None,
            compression=None,
        )
        connection: ClientConnection = made.__enter__()
        first.clients.append(connection)
        return connection

    with nginx(front, program, name="relays"):
        # nginx spreads the connections: both relays have some.
        readers = [client(SUBPROTOCOL) for _ in range(4)]
        positions = [Position("c") for _ in readers]
        got: list[list[str]] = [[] for _ in readers]

        def read(number: int, until: int) -> None:
            """Read on one connection until there are this many messages."""
            while len(got[number]) < until:
                message = json.loads(readers[number].recv(timeout=60))
                if message.get("channel") == "c":
                    for event in positions[number].take(message):
                        assert not isinstance(event, Reset)
                        if isinstance(event, Message):
                            got[number].append(event.data.get("task_id", "end"))

        for number, reader in enumerate(readers):
            reader.send(positions[number].request())
        wait_for(
            lambda: all("subscribed to c" in each.daemon.log for each in (first, second)),
            "both have readers",
        )
        for task in range(50):
            first.broker.task("c", task)
        for number in range(4):
            read(number, 50)
        first.daemon.process.kill()
        for number, reader in enumerate(readers):
            try:
                while True:
                    reader.recv(timeout=0.5)
            except TimeoutError:
                continue
            except ConnectionClosed:
                # It was at the one that is gone.
                positions[number].disconnected()
                readers[number] = client(SUBPROTOCOL)
                readers[number].send(positions[number].request())
        start_again(first, start_daemon)
        for task in range(50, 100):
            first.broker.task("c", task)
        first.broker.send("c", "FINISHED")
        for number in range(4):
            read(number, 101)
        assert got == [[*(f"t{task}" for task in range(100)), "end"]] * 4
        late = client()
        late.send("c")
        assert len(everything(late)[0]) == 101
