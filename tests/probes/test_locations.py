"""Two daemons in two locations check the same sites; Kafka carries the results to one of them."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.ports import free_port
from tests.probes.misbehaving import Misbehaving
from tests.servers.daemon import StartDaemon
from tests.servers.kafka import Kafka
from tests.waiting import wait_for

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(300)]


def config(kafka: Kafka, server: Misbehaving, topic: str, location: str) -> dict[str, Any]:
    # The sites are the same. What a location cannot reach is played: it expects what is not there.
    missing = {"body_regexp": "never there"}
    down_in = {1: (), 2: ("brno",), 3: ("brno", "prague"), 4: ("prague",)}
    jobs = [
        {
            "id": number,
            "url": server.url("/ok"),
            "interval": 1,
            "timeout": 5,
            **(missing if location in places else {}),
        }
        for number, places in down_in.items()
    ]
    return {
        "relay": False,
        "kafka": {"bootstrap_servers": [f"127.0.0.1:{kafka.port}"], "partitions": 2},
        "probes": {"jobs": jobs, "topic": topic, "location": location, "quorum": 2},
    }


def test_a_site_is_down_where_a_quorum_says_so_and_each_location_is_counted_apart(
    kafka: Kafka, server: Misbehaving, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    topic, port = "locations-test", free_port()
    here = start_daemon(
        {
            **config(kafka, server, topic, "prague"),
            "api": {"uri": ["127.0.0.1", port]},
            "aggregation": {"topic": topic, "flush_interval": 1},
            "alerts": {
                "topic": topic,
                "receivers": [{"name": "hook", "webhook": server.url("/ok")}],
                "rules": [{"name": "site", "watch": "site", "receivers": ["hook"]}],
            },
        },
        directory=tmp_path / "prague",
    ).wait_ready()
    there = start_daemon(
        config(kafka, server, topic, "brno"), directory=tmp_path / "brno"
    ).wait_ready()

    def get(path: str) -> Any:
        answer = requests.get(f"http://127.0.0.1:{port}{path}", timeout=30)
        assert answer.status_code == 200, answer.text
        return answer

    def both() -> list[dict[str, Any]] | None:
        jobs: list[dict[str, Any]] = get("/job").json()["items"]
        known = all(len(job["locations"]) == 2 for job in jobs)
        return jobs if known and jobs[2]["state"] == "down" else None

    jobs = wait_for(both, "results of both locations")
    assert [job["state"] for job in jobs] == ["up", "up", "down", "up"]
    said = [{each["location"]: each["up"] for each in job["locations"]} for job in jobs]
    assert said == [
        {"brno": True, "prague": True},
        {"brno": False, "prague": True},
        {"brno": False, "prague": False},
        {"brno": True, "prague": False},
    ]

    # What is down in one location opens no incident, not even before the other was heard of.
    def of_both() -> bool:
        incidents = get("/incident").json()["items"]
        assert {each["job"] for each in incidents} <= {3}
        assert all(each["resolved_at"] is None for each in incidents)
        words = "(brno, prague: 2 of 2 locations)"
        assert all(each["reason"].endswith(words) for each in incidents)
        return len(incidents) == 1

    wait_for(of_both, "the incident")

    there.process.kill()
    alone = "(and 3 more)"

    def left_alone() -> bool:
        assert of_both()
        states = [job["state"] for job in get("/job").json()["items"]]
        assert states[:3] == ["up", "up", "down"]
        alerts = get("/healthz").json()["parts"]["alerts"]
        few = "unknown: down in 1 location, the quorum is 2"
        return bool(states[3] == few and alerts["summary"].endswith(alone))

    wait_for(left_alone, "one location")
    there = start_daemon(
        config(kafka, server, topic, "brno"), directory=tmp_path / "brno"
    ).wait_ready()

    def together() -> bool:
        assert of_both()
        states = [job["state"] for job in get("/job").json()["items"]]
        alerts = get("/healthz").json()["parts"]["alerts"]
        return (states, alerts["health"]) == (["up", "up", "down", "up"], "ok")

    wait_for(together, "both locations again")

    series = get("/metrics/probes").text.splitlines()
    success = [line for line in series if line.startswith("probe_success{")]
    assert len(success) == 8
    (away,) = [line for line in success if 'job="2"' in line and 'location="brno"' in line]
    assert away.endswith(" 0.0")

    assert there.stop() == 0
    assert here.stop() == 0
    # Both have written what they knew; the next run reads it.
    again = start_daemon(
        {
            "relay": False,
            "kafka": {"bootstrap_servers": [f"127.0.0.1:{kafka.port}"], "partitions": 2},
            "api": {"uri": ["127.0.0.1", port]},
            "aggregation": {"topic": topic, "flush_interval": 1},
        },
        directory=tmp_path / "prague",
    ).wait_ready()

    def rows() -> dict[str, list[tuple[Any, ...]]]:
        tables = sqlite3.connect(tmp_path / "prague" / "monitor.db")
        try:
            return {
                name: tables.execute(
                    f"SELECT job_id, location, {count} FROM {table}"
                    f" {where} GROUP BY job_id, location ORDER BY job_id, location"
                ).fetchall()
                for name, table, count, where in (
                    ("raw", "availability_result", "count(*)", ""),
                    (
                        "counted",
                        "availability_metric",
                        "sum(checks)",
                        "WHERE granularity = 'minute'",
                    ),
                )
            }
        finally:
            tables.close()

    def sent() -> list[tuple[Any, ...]]:
        from kafka import KafkaConsumer, TopicPartition

        consumer = KafkaConsumer(bootstrap_servers=f"127.0.0.1:{kafka.port}")
        places = [TopicPartition(topic, number) for number in (0, 1)]
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        ends = consumer.end_offsets(places)
        found: dict[tuple[int, str], set[float]] = {}
        while any(consumer.position(place) < ends[place] for place in places):
            for batch in consumer.poll(timeout_ms=500).values():
                for item in batch:
                    data = json.loads(item.value)
                    key = data["job_id"], data["location"]
                    found.setdefault(key, set()).add(data["scheduled_at"])
        consumer.close()
        return sorted((*key, len(times)) for key, times in found.items())

    expected = sent()
    assert len(expected) == 8
    wait_for(lambda: rows()["raw"] == expected, "every result in its row")
    assert rows()["counted"] == expected

    one = get("/job/2/result?location=brno&limit=2").json()
    assert [each["location"] for each in one["items"]] == ["brno", "brno"]
    assert not any(each["up"] for each in one["items"])
    pages: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = get(f"/job/2/result?limit=3&cursor={cursor}" if cursor else "/job/2/result?limit=3")
        pages += page.json()["items"]
        cursor = page.json()["cursor"]
    places = [(each["scheduled_at"], each["location"]) for each in pages]
    assert places == sorted(set(places), reverse=True)
    assert len(places) == sum(count for job, _, count in expected if job == 2)
    for query, of in (("", ("brno", "prague")), ("&location=prague", ("prague",))):
        windows = get(f"/job/2/metric?since=0{query}").json()["items"]
        wanted = sum(count for job, where, count in expected if job == 2 and where in of)
        assert sum(window["checks"] for window in windows) == wanted
    assert again.stop() == 0
