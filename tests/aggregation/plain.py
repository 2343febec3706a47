"""What the tables must hold, computed plainly and apart from the code that fills them."""

from __future__ import annotations

import datetime
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from monitor.aggregation.windows import GAMMA
from monitor.bus import Record
from monitor.store import Connection

TOPIC = "website_availability"


class Tables(NamedTuple):
    """The tables' content, comparable with ``==``; sums of floats apart, for they round."""

    results: dict[tuple[int, float, str], tuple[Any, ...]]
    metrics: dict[tuple[int, int, str, str], tuple[Any, ...]]
    rejected: dict[tuple[int, int], tuple[str, bytes]]
    offsets: dict[int, int]


def record(offset: int, value: bytes | dict[str, Any], partition: int = 0) -> Record:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Record(TOPIC, partition, offset, None, {}, data, 0.0)


def result(job_id: int, scheduled_at: float, **changes: Any) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "url": f"https://example.org/{job_id}",
        "scheduled_at": scheduled_at,
        "checked_at": scheduled_at + 0.25,
        "kind": "http",
        "up": True,
        "status": 200,
        "response_time": 0.125,
        "duration": 0.25,
        "error": None,
        "matched": True,
        "phases": {
            "resolve": 0.0,
            "connect": 0.0,
            "tls": 0.0,
            "processing": 0.1,
            "transfer": 0.025,
        },
        "certificate_expires_at": None,
        "producer": 1,
        "attempt": 1,
        "missed": 0,
        **changes,
    }


def start_of(instant: float, granularity: str) -> int:
    moment = datetime.datetime.fromtimestamp(instant, datetime.UTC).replace(second=0, microsecond=0)
    if granularity != "minute":
        moment = moment.replace(minute=0)
    if granularity == "day":
        moment = moment.replace(hour=0)
    return int(moment.timestamp())


def bucket(response_time: float) -> int:
    number = -352  # 1 us and less
    while GAMMA**number < response_time * (1 - 1e-12):
        number += 1
    return number


def plain_tables(
    records: Iterable[Record], granularities: Sequence[str] = ("minute", "hour", "day")
) -> Tables:
    """Go through ``records`` in order, each seen at least once."""
    results: dict[tuple[int, float, str], dict[str, Any]] = {}
    rejected: dict[tuple[int, int], tuple[str, bytes]] = {}
    offsets: dict[int, int] = {}
    for item in records:
        offsets[item.partition] = max(offsets.get(item.partition, 0), item.offset + 1)
        try:
            data = json.loads(item.value)
            key = data["job_id"], data["scheduled_at"], data.get("location", "")
            results.setdefault(key, data)
        except (ValueError, KeyError, TypeError):
            rejected[item.partition, item.offset] = ("not-a-result", item.value)
    metrics: dict[tuple[int, int, str, str], tuple[Any, ...]] = {}
    windows: dict[tuple[int, int, str, str], list[dict[str, Any]]] = {}
    for (job, at, where), data in results.items():
        for granularity in granularities:
            window = job, start_of(at, granularity), granularity, where
            windows.setdefault(window, []).append(data)
    for window, here in windows.items():
        times = [data["response_time"] for data in here if data["response_time"] is not None]
        metrics[window] = (
            len(here),
            sum(not data["up"] for data in here),
            min(times, default=None),
            max(times, default=None),
            round(math.fsum(times), 6),
            dict(Counter(str(data["status"]).replace("None", "null") for data in here)),
            dict(Counter(str(bucket(time)) for time in times)),
        )
    raw = {
        key: tuple(
            data[name]
            for name in ("checked_at", "url", "kind", "up", "status", "response_time", "error")
        )
        for key, data in results.items()
    }
    return Tables(raw, metrics, rejected, offsets)


def read_tables(connection: Connection) -> Tables:
    """Read what the tables hold."""
    start = "extract(epoch FROM dt)::bigint" if connection.dialect == "postgresql" else "dt"
    return Tables(
        {
            (job, at, where): (checked, url, kind, bool(up), *rest)
            for job, at, where, checked, url, kind, up, *rest in connection.query(
                "SELECT job_id, scheduled_at, location, checked_at, url, kind, up, status,"
                " response_time, error FROM availability_result"
            )
        },
        {
            (job, dt, granularity, where): (
                checks,
                failures,
                least,
                most,
                round(total, 6),
                json.loads(data),
                json.loads(seen),
            )
            for job, dt, granularity, where, checks, failures, least, most, total, data, seen in (
                connection.query(
                    f"SELECT job_id, {start}, granularity, location, checks, failures, rt_min,"
                    " rt_max, rt_sum, data, rt_buckets FROM availability_metric"
                )
            )
        },
        {
            (partition, offset): (reason.partition(":")[0], bytes(payload))
            for partition, offset, reason, payload in connection.query(
                'SELECT partition, "offset", reason, payload FROM rejected_message'
            )
        },
        dict(connection.query("SELECT partition, next_offset FROM consumed_offset")),
    )
