"""Model events through the whole daemon, from a cluster to a topic of Kafka."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition

from tests.cluster.conftest import Lab, write_kubeconfig
from tests.cluster.plays import DeploymentPlay
from tests.servers.daemon import DaemonProcess, StartDaemon
from tests.servers.kafka import Kafka
from tests.waiting import wait_for

pytestmark = [pytest.mark.integration_test, pytest.mark.end_to_end]

NAMES = [f"model-{number}" for number in range(6)]


class Topic:
    """The records in all partitions of a topic, read by an independent consumer."""

    def __init__(self, kafka: Kafka, name: str) -> None:
        self._consumer: Any = KafkaConsumer(
            bootstrap_servers=[kafka.bootstrap],
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            group_id=None,
        )
        self._name = name
        self.records: list[Any] = []
        self.ids: set[str] = set()

    def poll(self) -> int:
        if not self._consumer.assignment():
            partitions = self._consumer.partitions_for_topic(self._name)
            if not partitions or len(partitions) < 3:
                return 0
            self._consumer.assign([TopicPartition(self._name, p) for p in partitions])
        for records in self._consumer.poll(timeout_ms=100).values():
            for record in records:
                # A kill between forwarding and noting it may send an event again, with its id.
                if self.header(record, "ce_id") not in self.ids:
                    self.ids.add(self.header(record, "ce_id"))
                    self.records.append(record)
        return len(self.records)

    def close(self) -> None:
        self._consumer.close()

    def header(self, record: Any, name: str) -> str:
        return str(dict(record.headers)[name].decode())

    def told(self, name: str) -> list[tuple[str, str | None]]:
        """Return type and version of a service's events, in the order of their partition."""
        return [
            (self.header(record, "ce_type").rpartition(".")[2], json.loads(record.value)["version"])
            for record in self.records
            if record.key == f"models/{name}".encode()
        ]


@pytest.fixture
def topic(kafka: Kafka) -> Iterator[Topic]:
    topic = Topic(kafka, "model-updates-end-to-end")
    yield topic
    topic.close()


def wait_events(topic: Topic, number: int) -> None:
    wait_for(lambda: topic.poll() >= number, f"{number} events in {topic.records}", limit_s=60)


def test_each_change_reaches_kafka_once_in_the_order_of_its_service(
    kafka: Kafka, topic: Topic, lab: Lab, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    config = {
        "relay": False,
        "kafka": {"bootstrap_servers": [kafka.bootstrap], "partitions": 3},
        "cluster": {
            "topic": "model-updates-end-to-end",
            "name": "prod",
            "kinds": ["Deployment", "DeploymentConfig"],
            "kubeconfig": str(write_kubeconfig(tmp_path / "kubeconfig", lab.server)),
        },
    }
    plays = [DeploymentPlay(name, replicas=1) for name in NAMES]
    first = {}
    for play in plays:
        lab.play(play.create("models/m:1"))
        first[play.name] = play.template
    daemon = start_daemon(config).wait_ready()
    wait_events(topic, 6)
    for play in plays:
        lab.play(play.set_image("models/m:2"))
    wait_events(topic, 12)
    # It dies with no time to say so, and the cluster keeps running.
    kill(daemon)
    for play in plays[:3]:
        lab.play(play.undo(first[play.name]))
    lab.play(plays[3].delete())
    start_daemon(config).wait_ready()
    wait_events(topic, 16)
    upgraded = [("deployed", "1"), ("upgraded", "2")]
    for name in NAMES[:3]:
        assert topic.told(name) == [*upgraded, ("rolledback", "1")]
    assert topic.told(NAMES[3]) == [*upgraded, ("removed", "2")]
    for name in NAMES[4:]:
        assert topic.told(name) == upgraded
    assert len(topic.records) == 16
    by_key = {record.key: set[int]() for record in topic.records}
    for record in topic.records:
        by_key[record.key].add(record.partition)
    assert all(len(partitions) == 1 for partitions in by_key.values())
    assert {json.loads(record.value)["catch_up"] for record in topic.records[12:]} == {True}
    sources = {topic.header(record, "ce_source") for record in topic.records}
    assert f"/clusters/prod/namespaces/models/deployments/{NAMES[0]}" in sources


def kill(daemon: DaemonProcess) -> None:
    daemon.process.kill()
    daemon.wait()
