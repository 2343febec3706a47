"""The part in one process, with the spool and SQLite."""

from __future__ import annotations

from pathlib import Path

from monitor.aggregation.settings import AggregationSettings
from monitor.part import Health
from tests.aggregation.plain import TOPIC, result
from tests.aggregation.running import NEVER_S, NOW, running
from tests.waiting import until


async def test_rows_are_there_soon_after_the_flush_interval(tmp_path: Path) -> None:
    async with running(tmp_path, flush_interval=0.2) as now:
        assert now.part.state().health is Health.STARTING
        await now.publish(result(1, NOW), b"poison", result(1, NOW), result(2, NOW))
        await until(lambda: now.part.statistics.new == 2)
        assert (await now.tables()).results.keys() == {(1, NOW, ""), (2, NOW, "")}
        state = now.part.state()
        assert state.health is Health.OK
        assert state.summary.endswith("2 results, 1 duplicate, 1 rejected")


async def test_flush_messages_are_not_kept_waiting(tmp_path: Path) -> None:
    async with running(tmp_path, flush_interval=NEVER_S, flush_messages=5) as now:
        await now.publish(*(result(1, NOW + second) for second in range(5)))
        await until(lambda: now.part.statistics.new == 5)


async def test_draining_writes_what_has_been_read(tmp_path: Path) -> None:
    async with running(tmp_path, flush_interval=NEVER_S) as now:
        await now.publish(result(1, NOW), result(2, NOW))
        await until(lambda: now.part.partitions() == [0])
        await until(lambda: now.part.waiting() == 2)
        assert (await now.tables()).results == {}
        await now.part.drain()
        assert len((await now.tables()).results) == 2
        assert not now.task.done()


async def test_a_restart_counts_nothing_twice_and_leaves_nothing_out(tmp_path: Path) -> None:
    async with running(tmp_path, flush_interval=NEVER_S) as now:
        await now.publish(*(result(1, NOW + second) for second in range(10)))
        await until(lambda: now.part.waiting() == 10)

    async with running(tmp_path, flush_interval=0.2) as now:
        await now.publish(result(1, NOW), result(1, NOW + 11))
        await until(lambda: now.part.statistics.duplicates == 1)
        assert now.part.statistics.new == 1  # the rest was written when the first one stopped
        found = await now.tables()
        assert sum(row[0] for key, row in found.metrics.items() if key[2] == "day") == 11


async def test_a_reload_adopts_limits_and_keeps_the_topic(tmp_path: Path) -> None:
    async with running(tmp_path, flush_interval=NEVER_S) as now:
        await now.publish(result(1, NOW))
        await until(lambda: now.part.waiting() == 1)
        switch = await now.part.prepare(
            AggregationSettings(flush_interval=0.1, topic="other", group="another")
        )
        assert now.part.statistics.new == 0
        switch()
        await until(lambda: now.part.statistics.new == 1)


async def test_metrics_are_there_by_their_names(tmp_path: Path) -> None:
    async with running(tmp_path, flush_interval=0.1) as now:
        await now.publish(result(1, NOW), b"poison")
        await until(lambda: now.part.statistics.new == 1)
        found = {metric.name: metric for metric in now.part.metrics()}
        assert found["consumer_rejected_total"].samples == [({"topic": TOPIC}, 1)]
        assert found["consumer_lag"].samples[0][0] == {"topic": TOPIC, "partition": "0"}
        batches = list(found["consumer_batch_messages"].samples)
        assert batches[-1][1] >= 1
        assert [value for labels, value in batches if labels.get("le") == "+Inf"] == [
            batches[-1][1]
        ]
