"""The plain way to count results, which benchmarks/aggregation.py compares with ours.

One statement a row and window, in transactions of 1000 results: psycopg2, json, no batching by
hand. It counts a result that comes twice only once, as ours does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import closing

import psycopg2

from monitor.aggregation.windows import WIDTHS_S, bucket_of, window_start

_INSERT = """INSERT INTO availability_result (job_id, scheduled_at, checked_at, url, kind, up,
    status, response_time, duration, error, matched, phases, producer, attempt, missed)
    VALUES (%(job_id)s, %(scheduled_at)s, %(checked_at)s, %(url)s, %(kind)s, %(up)s, %(status)s,
    %(response_time)s, %(duration)s, %(error)s, %(matched)s, %(phases)s, %(producer)s,
    %(attempt)s, %(missed)s) ON CONFLICT DO NOTHING"""
_UPSERT = """INSERT INTO availability_metric AS m (job_id, dt, granularity, checks, failures,
    rt_min, rt_max, rt_sum, data, rt_buckets)
    VALUES (%(job_id)s, to_timestamp(%(start)s), %(granularity)s, 1, %(failed)s,
    %(response_time)s, %(response_time)s, coalesce(%(response_time)s, 0), %(data)s, %(buckets)s)
    ON CONFLICT (job_id, dt, granularity, location) DO UPDATE SET checks = m.checks + 1,
    failures = m.failures + excluded.failures, rt_min = least(m.rt_min, excluded.rt_min),
    rt_max = greatest(m.rt_max, excluded.rt_max), rt_sum = m.rt_sum + excluded.rt_sum,
    data = counts_add(m.data, excluded.data),
    rt_buckets = counts_add(m.rt_buckets, excluded.rt_buckets)"""


def write(url: str, messages: Sequence[bytes]) -> float:
    """Write all messages and return how long it took, in s."""
    begun = time.monotonic()
    with closing(psycopg2.connect(url, options="-c search_path=website_availability")) as database:
        cursor = database.cursor()
        for number, message in enumerate(messages, 1):
            data = json.loads(message)
            data["phases"] = json.dumps(data["phases"])
            cursor.execute(_INSERT, data)
            if cursor.rowcount:
                _count(cursor, data)
            if number % 1000 == 0:
                database.commit()
        database.commit()
    return time.monotonic() - begun


def _count(cursor: psycopg2.extensions.cursor, data: dict[str, object]) -> None:
    response_time = data["response_time"]
    data["failed"] = int(not data["up"])
    data["data"] = json.dumps({str(data["status"]): 1})
    buckets = {} if response_time is None else {str(bucket_of(response_time)): 1}  # type: ignore[arg-type]
    data["buckets"] = json.dumps(buckets)
    for granularity in WIDTHS_S:
        data["granularity"] = granularity
        data["start"] = window_start(data["scheduled_at"], granularity)  # type: ignore[arg-type]
        cursor.execute(_UPSERT, data)
