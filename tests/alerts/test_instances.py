"""Two daemons that share the rules, through real Kafka and PostgreSQL; one is killed."""

from __future__ import annotations

import asyncio
import json
import random
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monitor.alerts import outbox
from monitor.alerts.planning import Plan
from monitor.store import Connection, DatabaseSettings
from tests.aggregation.producers import PARTITIONS, whole_topic
from tests.alerts.receiver import HttpReceiver, Request, response
from tests.alerts.running import SITE, TOPIC, result, running, webhook
from tests.servers.daemon import StartDaemon
from tests.servers.kafka import Kafka
from tests.store.opened import opened
from tests.waiting import wait_for

pytestmark = [pytest.mark.integration_test, pytest.mark.timeout(300)]

JOBS = 12
ROUNDS = 4


def openings(values: list[dict[str, Any]], failures: int) -> list[float]:
    """Return when a job's incidents open, by its results in the order of the topic."""
    found: list[float] = []
    row, known = 0, set[float]()
    for value in values:
        if value["scheduled_at"] in known:
            continue
        known.add(value["scheduled_at"])
        row = 0 if value["up"] else row + 1
        if row == failures:
            found.append(value["checked_at"])
    return found


async def test_each_job_is_judged_by_one_and_each_event_arrives_though_one_is_killed(
    make_kafka: Callable[..., Kafka], postgres_url: str, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    from kafka import KafkaProducer

    kafka = make_kafka()
    async with opened(DatabaseSettings(url=postgres_url)):
        pass
    chance = random.Random(7)

    def answer(_: Request) -> bytes:
        # It may accept and not say so.
        return chance.choice([response(200)] * 6 + [response(500), b""])

    async with HttpReceiver(answer) as first, HttpReceiver() as second:
        config = {
            "relay": False,
            "kafka": {"bootstrap_servers": [kafka.bootstrap], "partitions": PARTITIONS},
            "database": {"url": postgres_url},
            "alerts": {
                "group_wait": 0,
                "flapping": 1000,
                "receivers": [
                    {"name": "first", "webhook": first.url},
                    {"name": "second", "webhook": second.url},
                ],
                "rules": [{**SITE, "receivers": ["first", "second"]}],
            },
        }

        def start(name: str) -> Any:
            return start_daemon(config, directory=tmp_path / name).wait_ready()

        one = await asyncio.to_thread(start, "one")
        await asyncio.to_thread(one.wait_log, "judging partitions")
        two = await asyncio.to_thread(start, "two")

        def judged(daemon: Any) -> set[int]:
            found = re.findall(r"judging partitions \[(.*)\]", daemon.log)
            return (
                {int(number) for number in found[-1].split(",")} if found and found[-1] else set()
            )

        def shared() -> bool:
            places = judged(one), judged(two)
            return (
                all(places)
                and not places[0] & places[1]
                and len(places[0] | places[1]) == PARTITIONS
            )

        await asyncio.to_thread(wait_for, shared, "each partition to be one's")
        producer = await asyncio.to_thread(
            lambda: KafkaProducer(bootstrap_servers=kafka.bootstrap, retries=100)
        )
        at = time.time()
        for turn in range(ROUNDS):
            for up in (False, False, True):
                at += 1
                for job_id in range(1, JOBS + 1):
                    value = json.dumps(result(job_id, at, up=up)).encode()
                    for _ in range(chance.choice((1, 1, 2))):
                        producer.send(TOPIC, key=str(job_id).encode(), value=value)
                await asyncio.to_thread(producer.flush, 60)
                await asyncio.sleep(chance.uniform(0, 0.5))
            if turn == 1:
                one.process.kill()
                one.wait()
        await asyncio.to_thread(producer.close)

        async with opened(DatabaseSettings(url=postgres_url)) as store:

            async def stored() -> list[tuple[Any, ...]]:
                return await store.read(
                    lambda c: c.query(
                        "SELECT i.id, i.job_id, i.opened_at, i.resolved_at, i.look_at, d.receiver,"
                        " d.event, d.accepted_at FROM alert_incident i"
                        " LEFT JOIN alert_notice n ON n.incident_id = i.id"
                        " LEFT JOIN alert_delivery d ON d.id = n.delivery_id"
                    )
                )

            rows: list[tuple[Any, ...]] = []
            async with asyncio.timeout(150):
                while True:
                    rows = await stored()
                    ids = {row[0] for row in rows}
                    if len(ids) >= ROUNDS * JOBS and all(
                        row[3] is not None and row[4] is None and row[7] is not None for row in rows
                    ):
                        break
                    await asyncio.sleep(0.1)

        # The incidents are those of the topic, in whatever hands its partitions were.
        by_job: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for record in await asyncio.to_thread(whole_topic, kafka.bootstrap):
            value = json.loads(record.value)
            by_job[value["job_id"]].append(value)
        found: dict[int, set[float]] = defaultdict(set)
        for _, job_id, opened_at, *_ in rows:
            found[job_id].add(opened_at)
        assert {job: sorted(times) for job, times in found.items()} == {
            job: openings(values, 2) for job, values in by_job.items()
        }
        assert len(ids) == ROUNDS * JOBS

        for name, receiver in (("first", first), ("second", second)):
            expected: dict[str, set[str]] = defaultdict(set)
            for incident, *_, to, event, _ in rows:
                if to == name:
                    expected[incident].add(event)
            arrived: dict[str, set[str]] = defaultdict(set)
            deliveries: dict[tuple[str, str], set[str]] = defaultdict(set)
            for request in receiver.requests:
                body = request.json
                for each in body["incidents"]:
                    deliveries[each["id"], body["event"]].add(request.headers["x-delivery"])
                    if request in receiver.accepted:
                        arrived[each["id"]].add(body["event"])
            assert {incident: arrived[incident] for incident in ids} == dict(expected)
            assert all("resolved" in events for events in expected.values())
            # A repeated message is the same delivery.
            assert all(len(each) == 1 for each in deliveries.values())
        assert await asyncio.to_thread(two.stop) == 0


async def test_an_end_that_is_noted_while_the_message_is_planned_is_sent(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carry_out, planned = outbox.carry_out, threading.Event()
    loop, checks = asyncio.get_running_loop(), list[asyncio.Task[None]]()

    def after_an_end(connection: Connection, made: Plan, *rest: Any) -> int:
        """Let the judge note the end first, unless it waits for this transaction."""
        if "opened" in made.events and not planned.is_set():
            planned.set()
            loop.call_soon_threadsafe(lambda: checks.append(loop.create_task(it_is_up())))
            wait_for(
                lambda: connection.query(
                    "SELECT 1 FROM alert_incident WHERE resolved_at IS NOT NULL"
                    " UNION ALL SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                    " AND datname = current_database()"
                ),
                "the judge",
            )
        return carry_out(connection, made, *rest)

    async def it_is_up() -> None:
        await now.check((1, True))

    monkeypatch.setattr(outbox, "carry_out", after_an_end)
    database = DatabaseSettings(url=postgres_url)
    async with (
        HttpReceiver() as receiver,
        running(tmp_path, webhook(receiver.url), database=database) as now,
    ):
        await now.check((1, False))
        await now.check((1, False))
        await receiver.until(2)
        assert receiver.events() == [("opened", "1"), ("resolved", "1")]
