"""Deletes results, rejected messages and metrics past their retention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from monitor.aggregation.postgres_rows import PARTITION_S
from monitor.aggregation.purged import move_purged_before
from monitor.aggregation.settings import AggregationSettings
from monitor.errors import MonitorError
from monitor.store import Connection, Store
from monitor.store.partitions import create_partitions, delete_rows, drop_partitions
from monitor.store.purge import delete_in_steps, give_pages_back

__all__ = ["MARGIN_S", "Purged", "purge"]

MARGIN_S = 3600.0
"""Raw results are kept this many s longer than ``keep_results``.

A consumer accepts a result that is younger than ``keep_results`` by its own clock. Its duplicates
must be recognized for as long by the clocks of all other consumers.
"""


@dataclass(frozen=True, slots=True)
class Purged:
    """How many rows were deleted; of results in PostgreSQL, how many partitions."""

    results: int
    rejected: int
    metrics: Mapping[str, int]


async def purge(store: Store, settings: AggregationSettings, *, now: float) -> Purged:
    """Delete what is too old at ``now`` (s since the epoch), in short transactions.

    In PostgreSQL it also creates the partitions of raw results for today and tomorrow. Raises
    MonitorError if the database is unavailable; the next purge deletes the rest.
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

        missing: MonitorError | None = None
        try:
            await store.transaction(create)
        except MonitorError as error:
            missing = error
        dropped = await drop_partitions(store, "availability_result", before=results_before)
        results = len(dropped)
        if missing is not None:
            raise missing
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
            before = now - keep_s

            def move(
                connection: Connection, granularity: str = granularity, before: float = before
            ) -> None:
                move_purged_before(connection, granularity, before)

            await store.transaction(move)
            metrics[granularity] = await _purge_metrics(store, granularity, before)
    await give_pages_back(store)
    return Purged(results, rejected, metrics)


async def _purge_metrics(store: Store, granularity: str, before: float) -> int:
    if store.dialect == "postgresql":
        return await delete_in_steps(
            store,
            lambda connection, limit: delete_rows(
                connection,
                "availability_metric",
                "granularity = %s AND dt < to_timestamp(%s)",
                (granularity, before),
                limit,
            ),
        )
    statement = (
        "DELETE FROM availability_metric WHERE (job_id, dt, granularity) IN (SELECT job_id,"
        " dt, granularity FROM availability_metric WHERE granularity = %s AND dt < %s LIMIT %s)"
    )
    return await delete_in_steps(
        store,
        lambda connection, limit: connection.execute(statement, (granularity, before, limit)),
    )
