"""Jobs in the database, of both kinds."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from monitor.probes.job import Job
from monitor.probes.jobs_table import (
    BEFORE_FREE,
    DatabaseJobs,
    Saved,
    load_jobs,
    save_jobs,
    start_job,
    stop_job,
    stopped_jobs,
)
from monitor.store import DatabaseSettings, Store
from tests.store.opened import opened

JOBS = [
    Job(id=1, url="https://example.org/", name="plain"),
    Job(
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
    Job(id=2**40, url="tcp://127.0.0.1:22", kind="tcp"),
]

WithStore = Callable[[Callable[[Store], Coroutine[Any, Any, Any]]], None]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration_test)])
def with_store(request: pytest.FixtureRequest, tmp_path: Path) -> WithStore:
    if request.param == "sqlite":
        database = DatabaseSettings(file=str(tmp_path / "monitor.db"))
    else:
        database = DatabaseSettings(url=request.getfixturevalue("postgres_url"))

    def run(test: Callable[[Store], Coroutine[Any, Any, Any]]) -> None:
        async def main() -> None:
            async with opened(database) as store:
                await asyncio.wait_for(test(store), 60)

        asyncio.run(main(), debug=True)

    return run


def test_jobs_come_back_as_they_were_saved(with_store: WithStore) -> None:
    async def test(store: Store) -> None:
        assert await store.transaction(lambda c: save_jobs(c, JOBS)) == Saved(3, 0, 0)
        found = await DatabaseJobs(store).load()
        assert list(found.jobs) == JOBS
        assert found.refused == ()
        renamed = [JOBS[0].replace(name="other"), *JOBS[1:]]
        assert await store.transaction(lambda c: save_jobs(c, renamed)) == Saved(0, 1, 2)
        assert list((await DatabaseJobs(store).load()).jobs) == renamed

    with_store(test)


def test_the_greatest_id_leaves_ids_for_rows_inserted_by_hand(with_store: WithStore) -> None:
    async def test(store: Store) -> None:
        jobs = [*JOBS, Job(id=2**63 - 1, url="https://example.org/greatest")]
        await store.transaction(lambda c: save_jobs(c, jobs))
        found = await store.read(
            lambda c: c.query(f"SELECT max(amc_id) FROM availability_monitor_config {BEFORE_FREE}")
        )
        assert found == [(2**40,)]
        if store.dialect == "postgresql":
            await store.transaction(
                lambda c: c.query(
                    "INSERT INTO availability_monitor_config (amc_url) VALUES ('http://x/')"
                    " RETURNING amc_id"
                )
            )
            assert 2**40 + 1 in [job.id for job in (await DatabaseJobs(store).load()).jobs]

    with_store(test)


def test_a_row_inserted_by_hand_has_defaults_and_a_bad_one_is_named(with_store: WithStore) -> None:
    async def test(store: Store) -> None:
        await store.transaction(lambda c: save_jobs(c, JOBS))
        insert = "INSERT INTO availability_monitor_config (amc_url, amc_options) VALUES (%s, %s)"
        await store.transaction(lambda c: c.execute(insert, ("https://example.net/", "{}")))
        await store.transaction(lambda c: c.execute(insert, ("ftp://example.net/", "{}")))
        await store.transaction(lambda c: c.execute(insert, ("https://e.net/", '{"retrys": 1}')))
        found = await store.read(load_jobs)
        assert found.jobs[-1] == Job(id=2**40 + 1, url="https://example.net/")
        assert [line.partition(":")[2].split(":")[0] for line in found.refused] == [
            f" site {2**40 + 2}",
            f" site {2**40 + 3}",
        ]

    with_store(test)


def test_a_job_stopped_by_hand_stays_stopped_until_it_is_started(with_store: WithStore) -> None:
    async def test(store: Store) -> None:
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

    with_store(test)


def test_a_change_is_told_at_once(with_store: WithStore) -> None:
    async def test(store: Store) -> None:
        source = DatabaseJobs(store)
        changed = asyncio.create_task(source.changed())
        while not changed.done():  # what is told before the source listens is not heard
            await store.transaction(lambda c: save_jobs(c, JOBS))
            await asyncio.wait({changed}, timeout=0.05)

    with_store(test)


def test_what_is_told_while_the_jobs_are_read_is_not_missed(with_store: WithStore) -> None:
    async def test(store: Store) -> None:
        source = DatabaseJobs(store)
        await source.changed()  # it listens from now on
        await store.transaction(lambda c: save_jobs(c, JOBS))
        await source.load()
        for job_id in (1, 2**40):
            await store.transaction(functools.partial(stop_job, job_id=job_id))
        while (await source.load()).stopped != {1, 2**40}:
            await asyncio.wait_for(source.changed(), 20)

    with_store(test)
