"""kill -9 of the daemon, at any point: no event is lost, and a repeat has the same delivery id."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from monitor.bus import BusSettings
from monitor.bus.spool import SpoolBus
from tests.alerts.receiver import HttpReceiver, Request, response
from tests.alerts.running import SITE, TOPIC, result
from tests.servers.daemon import StartDaemon
from tests.waiting import until

pytestmark = pytest.mark.end_to_end

JOBS = 20
ROUNDS = 3


async def test_each_event_of_each_incident_arrives_whatever_is_killed_when(
    tmp_path: Path, start_daemon: StartDaemon
) -> None:
    chance = random.Random(1)

    def answer(_: Request) -> bytes:
        # A receiver that has its own troubles: it may accept and not say so.
        return chance.choice([response(200)] * 6 + [response(500), b""])

    async with HttpReceiver(answer) as receiver:
        config = {
            "relay": False,
            "alerts": {
                "group_wait": 0,
                "flapping": 1000,
                "receivers": [{"name": "hook", "webhook": receiver.url}],
                "rules": [{**SITE, "failures": 1, "receivers": ["hook"]}],
            },
        }
        daemon = await asyncio.to_thread(lambda: start_daemon(config).wait_ready())
        await asyncio.to_thread(daemon.wait_log, "judging partitions")
        # The producer is another process, which lives on.
        bus = SpoolBus(BusSettings(file=str(tmp_path / "spool.db")))
        await bus.start()
        at = time.time()
        for turn in range(ROUNDS):
            for up in (False, True):
                at += 1
                for job_id in range(1, JOBS + 1):
                    value = json.dumps(result(job_id, at, up=up)).encode()
                    bus.publish(TOPIC, key=str(job_id), value=value, headers={})
                assert await bus.committed()
                await asyncio.sleep(chance.uniform(0, 1))
            if turn < ROUNDS - 1:
                daemon.process.kill()
                daemon.wait()
                daemon = await asyncio.to_thread(lambda: start_daemon(config).wait_ready())

        def stored() -> dict[str, set[str]]:
            """Return by incident which events are to be delivered, or raise if some wait."""
            database = sqlite3.connect(tmp_path / "monitor.db")
            try:
                found: dict[str, set[str]] = defaultdict(set)
                rows = database.execute(
                    "SELECT i.id, i.resolved_at, i.look_at, d.event, d.accepted_at"
                    " FROM alert_incident i LEFT JOIN alert_notice n ON n.incident_id = i.id"
                    " LEFT JOIN alert_delivery d ON d.id = n.delivery_id"
                ).fetchall()
            finally:
                database.close()
            for incident, resolved_at, look_at, event, accepted_at in rows:
                if resolved_at is None or look_at is not None or accepted_at is None:
                    return {}
                found[incident].add(event)
            return found

        # The delays of a receiver in trouble grow to minutes, and a restart does not shorten them.
        await until(lambda: len(stored()) == ROUNDS * JOBS, limit_s=110)
        await bus.close()
        arrived: dict[str, set[str]] = defaultdict(set)
        by_delivery: dict[str, set[tuple[str, ...]]] = defaultdict(set)
        for request in receiver.requests:
            body = request.json
            ids = tuple(each["id"] for each in body["incidents"])
            by_delivery[request.headers["x-delivery"]].add((body["event"], *ids))
        for request in receiver.accepted:
            for each in request.json["incidents"]:
                arrived[each["id"]].add(request.json["event"])
        expected = stored()
        assert {key: arrived[key] for key in expected} == expected
        assert all("resolved" in events for events in expected.values())
        # A repeated attempt is the same message.
        assert all(len(contents) == 1 for contents in by_delivery.values())
        per_incident = Counter(
            (body["event"], each["id"])
            for body in {r.headers["x-delivery"]: r.json for r in receiver.requests}.values()
            for each in body["incidents"]
        )
        assert set(per_incident.values()) == {1}
