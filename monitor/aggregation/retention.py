"""Removes what is older than it is to be kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from monitor.aggregation.postgres_rows import PARTITION_S
from monitor.aggregation.settings import AggregationSettings
from monitor.store import Connection, Store
from monitor.store.partitions import create_partitions, drop_partitions
from monitor.store.purge import delete_in_steps, give_pages_back

__all__ = ["MARGIN_S", "Purged", "purge"]

MARGIN_S = 3600.0
"""Raw results outlive ``keep_results`` by this, in s.

A result is taken while it is younger than ``keep_results`` by its consumer's clock, and its
duplicates must be known for as long by everyone else's.
"""


@dataclass(frozen=True, slots=True)
class Purged:
    """How much went: raw results' partitions (PostgreSQL) or rows (SQLite), and rows."""

    results: int
    rejected: int
    metrics: Mapping[str, int]


async def purge(store: Store, settings: AggregationSettings, *, now: float) -> Purged:
    """Remove what is too old at ``now`` (s since the epoch), in steps that block nobody long.

    In PostgreSQL it also makes the partitions of raw results for today and tomorrow. Raises
    MonitorError when the database is away; what is left goes next time.
    """
    results_before = now - settings.keep_results - MARGIN_S
    if store.dialect == "postgresql":

        def create(connection: Connection) -> None:
            create_partitions(
                connection,
                "availability_result",
                since=now,
                until=now + PARTITION_S,
                width_s=PARTITION_S,
            )

        await store.transaction(create)
        dropped = await drop_partitions(store, "availability_result", before=results_before)
        results = len(dropped)
    else:
        results = await delete_in_steps(
            store,
            lambda connection, limit: connection.execute(
                "DELETE FROM availability_result WHERE (job_id, scheduled_at) IN (SELECT job_id,"
                " scheduled_at FROM availability_result WHERE scheduled_at < %s LIMIT %s)",
                (results_before, limit),
            ),
        )
    rejected = await delete_in_steps(
        store,
        lambda connection, limit: connection.execute(
            'DELETE FROM rejected_message WHERE (topic, partition, "offset") IN (SELECT topic,'
            ' partition, "offset" FROM rejected_message WHERE rejected_at < %s LIMIT %s)',
            (now - settings.keep_rejected, limit),
        ),
    )
    keep = settings.keep_metrics
    metrics = {}
    for granularity, keep_s in (("minute", keep.minute), ("hour", keep.hour), ("day", keep.day)):
        if keep_s is not None:
            metrics[granularity] = await _purge_metrics(store, granularity, now - keep_s)
    await give_pages_back(store)
    return Purged(results, rejected, metrics)


async def _purge_metrics(store: Store, granularity: str, before: float) -> int:
    # A row by its place: PostgreSQL's index on time only leads to the pages to look at.
    if store.dialect == "postgresql":
        statement = (
            "DELETE FROM availability_metric WHERE ctid = ANY(ARRAY(SELECT ctid FROM"
            " availability_metric WHERE granularity = %s AND dt < to_timestamp(%s) LIMIT %s))"
        )
    else:
        statement = (
            "DELETE FROM availability_metric WHERE (job_id, dt, granularity) IN (SELECT job_id,"
            " dt, granularity FROM availability_metric WHERE granularity = %s AND dt < %s LIMIT %s)"
        )
    return await delete_in_steps(
        store,
        lambda connection, limit: connection.execute(statement, (granularity, before, limit)),
    )
