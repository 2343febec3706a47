"""Jobs in the database, of both kinds."""

from __future__ import annotations

import asyncio
import functools

from monitor.probes.checks.http import HttpJob
from monitor.probes.checks.tcp import TcpJob
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
from monitor.store import Store

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


async def test_the_greatest_id_leaves_ids_for_rows_inserted_by_hand(store: Store) -> None:
    jobs = [*JOBS, HttpJob(id=2**63 - 1, url="https://example.org/greatest")]
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
