"""Relays that share a topic, while any of them, the broker and Kafka are killed in any order."""

from __future__ import annotations

import json
import os
import random
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from monitor.relay.client_position import End, Message, Position, Reset
from monitor.relay.protocol_v2 import SUBPROTOCOL
from tests.relay.broker import Broker
from tests.relay.conftest import Relay, everything
from tests.relay.test_sharing import StartShared, start_again, start_shared, topic
from tests.servers.daemon import StartDaemon
from tests.servers.kafka import Kafka
from tests.waiting import wait_for

__all__ = ["start_shared", "topic"]

pytestmark = [pytest.mark.integration_test, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def kafka(make_kafka: Callable[..., Kafka]) -> Kafka:
    """Return a broker of its own, which is killed."""
    return make_kafka()


class Reader:
    """A client of the recovering protocol that continues at any relay."""

    def __init__(self, relays: list[Relay], chance: random.Random) -> None:
        self.relays, self.chance = relays, chance
        self.position = Position("c")
        self.got: list[str] = []
        self.ended = False
        self.connect()

    def connect(self) -> None:
        alive = [each for each in self.relays if each.daemon.process.poll() is None]
        self.relay = self.chance.choice(alive)
        self.connection = self.relay.client(None, subprotocols=[SUBPROTOCOL])
        self.connection.send(self.position.request())

    def read(self, done: Callable[[], bool]) -> None:
        while not done():
            try:
                message = json.loads(self.connection.recv(timeout=120))
            except ConnectionClosed:
                self.position.disconnected()
                self.connect()
                continue
            for event in self.position.take(message) if message.get("channel") == "c" else ():
                # Who has nothing yet may have waited under an epoch that only one relay knew.
                assert not isinstance(event, Reset) or (event.seq == 0 and not self.got), event
                if isinstance(event, Message):
                    self.got.append(event.data.get("task_id", "end"))
                self.ended = self.ended or isinstance(event, End)


def test_who_resumes_anywhere_misses_nothing_whoever_is_killed(
    start_shared: StartShared, start_daemon: StartDaemon, kafka: Kafka
) -> None:
    seed = int(os.environ.get("RECODEX_TEST_SEED", random.randrange(1 << 30)))
    sys.stderr.write(f"RECODEX_TEST_SEED={seed}\n")
    chance = random.Random(seed)
    relays = [start_shared(broker=number == 0) for number in range(3)]
    feeding, broker = relays[0], relays[0].broker
    readers = [Reader(relays, chance) for _ in range(6)]
    sent = 0

    def send() -> None:
        nonlocal sent
        for _ in range(10):
            broker.task("c", sent)
            sent += 1

    def all_have_all() -> None:
        # Relays, too: one that lags when the broker comes to it begins where it is.
        alive = [each for each in relays if each.daemon.process.poll() is None]
        for reader in [*readers, *(Reader([each], chance) for each in alive)]:
            reader.read(lambda reader=reader: len(reader.got) >= sent)  # type: ignore[misc]

    def kill_a_relay() -> None:
        killed = chance.choice(relays)
        # What it took and told nobody is lost with it.
        all_have_all()
        killed.daemon.process.kill()
        killed.daemon.wait()
        if killed is feeding:
            move_the_broker()
            send()
        all_have_all()
        start_again(killed, start_daemon)

    def move_the_broker() -> None:
        nonlocal feeding, broker
        all_have_all()
        broker.close()
        alive = [each for each in relays if each.daemon.process.poll() is None]
        feeding = chance.choice(alive)
        feeding.brokers.append(Broker(f"tcp://127.0.0.1:{feeding.zeromq_port}"))
        broker = feeding.brokers[-1]

    def without_kafka() -> None:
        send()
        # Who reads where the broker is waits for nothing.
        near = [reader for reader in readers if reader.relay is feeding]
        for reader in near:
            reader.read(lambda reader=reader: len(reader.got) >= sent)  # type: ignore[misc]

    def kill_kafka() -> None:
        kafka.kill()
        without_kafka()
        kafka.start()

    def let_kafka_hang() -> None:
        kafka.pause()
        try:
            without_kafka()
        finally:
            kafka.resume()

    def stop_a_relay() -> None:
        stopped = chance.choice([each for each in relays if each is not feeding])
        assert stopped.daemon.stop() == 0
        send()
        all_have_all()
        start_again(stopped, start_daemon)

    steps: list[Callable[[], Any]]
    steps = [kill_a_relay, move_the_broker, kill_kafka, let_kafka_hang, stop_a_relay]
    done: list[str] = []
    for step in [*chance.sample(steps, len(steps)), chance.choice(steps)]:
        done.append(step.__name__)
        send()
        step()
    send()
    broker.send("c", "FINISHED")
    for reader in readers:
        reader.read(lambda reader=reader: reader.ended)  # type: ignore[misc]
    expected = [*(f"t{number}" for number in range(sent)), "end"]
    for reader in readers:
        assert reader.got == expected, (done, Counter(reader.got) - Counter(expected))
    for relay in relays:
        wait_for(relay.is_available, "each relay serves")
        texts, code = everything(relay.client("c"))
        assert ([json.loads(text).get("task_id", "end") for text in texts], code) == (
            expected,
            1000,
        )
