"""Jobs in the database, of both kinds."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path

import pytest

from monitor.probes.checks.http import HttpJob
from monitor.probes.checks.tcp import TcpJob
from monitor.probes.jobs_table import (
    DatabaseJobs,
    Saved,
    choose_id,
    end_pauses,
    load_jobs,
    save_jobs,
    start_job,
    stop_job,
    stopped_jobs,
)
from monitor.store import Connection, Store
from monitor.store.partitions import create_partitions
from monitor.store.sqlite import SqliteStore

JOBS = [
    HttpJob(id=1, url="https://example.org/", name="plain"),
    HttpJob(
        id=7,
        url="https://example.org/seven",
        method="POST",
        interval=5.5,
        timeout=2.25,
        retries=2,
        expected_status=[204, "300-399"],
        body_regexp=r"100% \w+",
        headers={"X-One": "a: b"},
        body="{}",
        follow_redirects=False,
        ip_version=6,
        max_body_bytes=10,
        active=False,
    ),
    TcpJob(id=2**40, url="tcp://127.0.0.1:22", body_regexp="^SSH"),
]


async def test_jobs_come_back_as_they_were_saved(store: Store) -> None:
    assert await store.transaction(lambda c: save_jobs(c, JOBS)) == Saved(3, 0, 0)
    found = await DatabaseJobs(store).load()
    assert list(found.jobs) == JOBS
    assert found.refused == ()
    renamed = [JOBS[0].replace(name="other"), *JOBS[1:]]
    assert await store.transaction(lambda c: save_jobs(c, renamed)) == Saved(0, 1, 2)
    assert list((await DatabaseJobs(store).load()).jobs) == renamed


async def test_a_row_inserted_by_hand_has_defaults_and_a_bad_one_is_named(store: Store) -> None:
    await store.transaction(lambda c: save_jobs(c, JOBS))
    insert = "INSERT INTO availability_monitor_config (amc_url, amc_options) VALUES (%s, %s)"
    await store.transaction(lambda c: c.execute(insert, ("https://example.net/", "{}")))
    await store.transaction(lambda c: c.execute(insert, ("ftp://example.net/", "{}")))
    await store.transaction(lambda c: c.execute(insert, ("https://e.net/", '{"retrys": 1}')))
    found = await store.read(load_jobs)
    assert found.jobs[-1] == HttpJob(id=2**40 + 1, url="https://example.net/")
    assert [line.partition(":")[2].split(":")[0] for line in found.refused] == [
        f" job {2**40 + 2}",
        f" job {2**40 + 3}",
    ]


def _execute(statement: str, row: tuple[str, ...], connection: Connection) -> None:
    connection.execute(statement, row)


async def test_a_key_of_a_column_is_no_option(store: Store) -> None:
    insert = "INSERT INTO availability_monitor_config (amc_url, amc_options) VALUES (%s, %s)"
    for options in ('{"interval": 5}', '{"url": "http://y/"}', '{"interval": 60, "retries": 1}'):
        row = ("http://x/", options)
        await store.transaction(functools.partial(_execute, insert, row))
    found = await store.read(load_jobs)
    assert found.jobs == (HttpJob(id=3, url="http://x/", retries=1),)
    assert [line.partition(": job ")[2] for line in found.refused] == [
        "1: amc_options.interval: belongs in the column amc_interval",
        "2: amc_options.url: belongs in the column amc_url",
    ]


@pytest.mark.parametrize("column", ["amc_name", "amc_url", "amc_regexp", "amc_options"])
async def test_text_in_another_encoding_costs_its_own_job_alone(
    tmp_path: Path, column: str
) -> None:
    store = SqliteStore(tmp_path / "monitor.db")
    await store.start()
    try:
        await store.transaction(lambda c: save_jobs(c, JOBS))
        update = f"UPDATE availability_monitor_config SET {column} = CAST(x'6772fc6e' AS TEXT)"
        await store.transaction(lambda c: c.execute(f"{update} WHERE amc_id = 1"))
        found = await store.read(load_jobs)
        assert [job.id for job in found.jobs] == [7, 2**40]
        assert found.refused == (
            f"availability_monitor_config: job 1: {column}: is not valid UTF-8",
        )
        assert (await store.transaction(lambda c: save_jobs(c, JOBS))).changed == 1
        assert (await store.read(load_jobs)).refused == ()
    finally:
        await store.close()


async def test_a_job_stopped_by_hand_stays_stopped_until_it_is_started(store: Store) -> None:
    await store.transaction(lambda c: save_jobs(c, JOBS))
    assert await store.transaction(lambda c: stop_job(c, 1))
    assert not await store.transaction(lambda c: stop_job(c, 1))
    found = await DatabaseJobs(store).load()
    assert found.stopped == {1}
    assert [job.id for job in found.active()] == [1, 2**40]
    await store.transaction(lambda c: save_jobs(c, JOBS))
    assert await store.read(stopped_jobs) == {1}
    assert await store.transaction(lambda c: start_job(c, 1))
    assert not await store.transaction(lambda c: start_job(c, 1))
    assert (await DatabaseJobs(store).load()).stopped == frozenset()


async def test_a_job_stopped_until_a_time_is_stopped_no_longer(store: Store) -> None:
    await store.transaction(lambda c: save_jobs(c, JOBS))
    assert await store.transaction(lambda c: stop_job(c, 1, until=100.0, now=50.0))
    assert not await store.transaction(lambda c: stop_job(c, 1, now=99.0))
    assert await store.read(lambda c: stopped_jobs(c, now=99.0)) == {1}
    assert await store.read(lambda c: stopped_jobs(c, now=100.0)) == frozenset()
    assert not await store.transaction(lambda c: end_pauses(c, now=99.0))
    assert await store.transaction(lambda c: end_pauses(c, now=100.0))
    # One that nobody ended does not keep the job from being stopped again.
    assert await store.transaction(lambda c: stop_job(c, 1, until=100.0, now=50.0))
    assert await store.transaction(lambda c: stop_job(c, 1, now=101.0))
    assert not await store.transaction(lambda c: end_pauses(c, now=10**10))


async def test_the_greatest_id_leaves_ids_for_rows_inserted_by_hand(store: Store) -> None:
    jobs = [*JOBS, HttpJob(id=2**63 - 1, url="https://example.org/greatest")]
    await store.transaction(lambda c: save_jobs(c, jobs))
    if store.dialect == "postgresql":
        await store.transaction(
            lambda c: c.query(
                "INSERT INTO availability_monitor_config (amc_url) VALUES ('http://x/')"
                " RETURNING amc_id"
            )
        )
        assert 2**40 + 1 in [job.id for job in (await DatabaseJobs(store).load()).jobs]
    assert await store.transaction(choose_id) > 2**40


async def test_a_change_is_told_at_once(store: Store) -> None:
    source = DatabaseJobs(store)
    changed = asyncio.create_task(source.changed())
    while not changed.done():  # a change before the source listens is not noticed
        await store.transaction(lambda c: save_jobs(c, JOBS))
        await asyncio.wait({changed}, timeout=0.05)


async def test_what_is_told_while_the_jobs_are_read_is_not_missed(store: Store) -> None:
    source = DatabaseJobs(store)
    await source.changed()  # it listens from now on
    await store.transaction(lambda c: save_jobs(c, JOBS))
    await source.load()
    for job_id in (1, 2**40):
        await store.transaction(functools.partial(stop_job, job_id=job_id))
    while (await source.load()).stopped != {1, 2**40}:
        await asyncio.wait_for(source.changed(), 60)


async def test_no_id_is_ever_chosen_twice(store: Store) -> None:
    def result(connection: Connection) -> None:
        if connection.dialect == "postgresql":
            create_partitions(connection, "availability_result", since=0, until=10, width_s=100)
        columns = ("job_id", "scheduled_at", "checked_at", "url", "kind", "up")
        row = (40, 1.0, 1.0, "http://x/", "http", True)
        connection.insert("availability_result", columns, [row])

    assert await store.transaction(choose_id) == 1
    assert await store.transaction(choose_id) == 2
    great = [HttpJob(id=job_id, url="http://x/") for job_id in (30, 2**63 - 1)]
    await store.transaction(lambda c: save_jobs(c, great))
    await store.transaction(lambda c: c.execute("DELETE FROM availability_monitor_config"))
    assert await store.transaction(choose_id) == 31
    await store.transaction(result)
    assert await store.transaction(choose_id) == 41
    assert await store.transaction(choose_id) == 42
