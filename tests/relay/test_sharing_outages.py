"""Relays that share a topic, while Kafka cannot be reached, and after the topic was deleted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from kafka import KafkaAdminClient

from tests.relay.conftest import everything
from tests.relay.test_sharing import StartShared, start_shared, topic
from tests.servers.cut import CutProxy
from tests.servers.kafka import Kafka

__all__ = ["start_shared", "topic"]

pytestmark = [pytest.mark.integration_test, pytest.mark.timeout(300)]


def tasks(texts: list[str]) -> list[str | None]:
    return [json.loads(text).get("task_id") for text in texts]


@pytest.fixture(scope="module")
def link() -> Iterator[CutProxy]:
    """Return the way to Kafka."""
    proxy = CutProxy()
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def kafka(link: CutProxy, make_kafka: Callable[..., Kafka]) -> Kafka:
    broker = make_kafka(advertised=link.port)
    link.target = broker.port
    return broker


def test_what_is_sent_while_kafka_is_away_reaches_the_others_when_it_is_back(
    start_shared: StartShared, link: CutProxy
) -> None:
    first, second = start_shared(), start_shared(broker=False)
    here, there = first.client("a"), second.client("a")
    for number in range(10):
        first.broker.task("a", number)
    got = [str(there.recv(timeout=60)) for _ in range(10)]
    link.cut()
    for number in range(10, 20):
        first.broker.task("a", number)
    # Who reads where the broker is misses nothing, and waits for nothing.
    assert tasks([str(here.recv(timeout=60)) for _ in range(20)]) == [f"t{n}" for n in range(20)]
    link.mend()
    first.broker.send("a", "FINISHED")
    rest, code = everything(there)
    assert (tasks(got + rest), code) == ([*(f"t{n}" for n in range(20)), None], 1000)
    assert everything(second.client("a")) == everything(first.client("a"))


def test_a_topic_that_is_deleted_and_created_again_serves_as_before(
    start_shared: StartShared, kafka: Kafka, topic: str
) -> None:
    first, second = start_shared(), start_shared(broker=False)
    here, there = first.client("a"), second.client("a")
    for number in range(10):
        first.broker.task("a", number)
    got = [str(there.recv(timeout=60)) for _ in range(10)]
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    try:
        admin.delete_topics([topic])
    finally:
        admin.close()
    for number in range(10, 20):
        first.broker.task("a", number)
    assert tasks([str(here.recv(timeout=60)) for _ in range(20)]) == [f"t{n}" for n in range(20)]
    first.broker.send("a", "FINISHED")
    rest, code = everything(there)
    assert (tasks(got + rest), code) == ([*(f"t{n}" for n in range(20)), None], 1000)
    # A channel that begins afterwards reaches everybody.
    first.broker.task("b", 1)
    first.broker.send("b", "FINISHED")
    assert tasks(everything(second.client("b"))[0]) == ["t1", None]
