"""Results sent to Kafka as others send them: twice, in doubt, and some that are not results."""

from __future__ import annotations

import json
import random
import threading
import time

from monitor.bus import Record
from tests.aggregation.plain import TOPIC, result

__all__ = ["PARTITIONS", "Producers", "whole_topic"]

PARTITIONS = 3
JOBS = 12


class Producers(threading.Thread):
    """Sends results, duplicates and poison until told to stop; all of it is in Kafka after that."""

    def __init__(self, bootstrap: str, seed: int, *, first_job: int = 1) -> None:
        super().__init__(daemon=True)
        self._servers = bootstrap
        self._first_job = first_job
        self._random = random.Random(seed)
        self._stopping = threading.Event()
        self.sent = 0

    def run(self) -> None:
        from kafka import KafkaProducer

        # Not idempotent and with retries: what it is unsure of, it sends twice.
        producer = KafkaProducer(
            bootstrap_servers=self._servers,
            enable_idempotence=False,
            retries=100,
            delivery_timeout_ms=120_000,
            request_timeout_ms=5000,
            linger_ms=20,
        )
        base = time.time() // 86400 * 86400 - 3 * 86400 + 86000
        recent: list[tuple[bytes, bytes]] = []
        while not self._stopping.is_set():
            for _ in range(25):
                key, value = self.message(base, recent)
                producer.send(TOPIC, key=key, value=value)
                self.sent += 1
            self._stopping.wait(0.1)
        producer.flush(timeout=120)
        producer.close()

    def message(self, base: float, recent: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
        dice = self._random.random()
        if dice < 0.03:
            poison = self._random.choice([b"", b"{", b"null", b"\xff\x00", b'{"job_id": 1}'])
            return b"1", poison
        if dice < 0.13 and recent:
            return self._random.choice(recent)
        # Of each time one result from here, and one from another location.
        turn, place = divmod(self.sent, 2)
        job = self._first_job + turn % JOBS
        up = self._random.random() > 0.1
        data = result(
            job,
            base + 5 * (turn // JOBS),
            location=("", "prague")[place],
            up=up,
            status=self._random.choice([200, 204, 503]) if up else None,
            response_time=self._random.randrange(1, 4000) / 1000 if up else None,
            error=None if up else "refused: \\N\t\n",
        )
        message = str(job).encode(), json.dumps(data).encode()
        recent.append(message)
        del recent[:-200]
        return message

    def stop(self) -> None:
        self._stopping.set()
        self.join(150)
        assert not self.is_alive()


def whole_topic(bootstrap: str, topic: str = TOPIC) -> list[Record]:
    """Read all that is in the topic, plainly."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    ends = consumer.end_offsets(places)
    records = []
    deadline = time.monotonic() + 60
    while any(consumer.position(place) < ends[place] for place in places):
        assert time.monotonic() < deadline
        for batch in consumer.poll(timeout_ms=500).values():
            records += [
                Record(topic, item.partition, item.offset, None, {}, item.value or b"", 0.0)
                for item in batch
            ]
    consumer.close()
    return sorted(records, key=lambda item: (item.partition, item.offset))
