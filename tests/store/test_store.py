"""What every store does, on real databases of both kinds."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from monitor.errors import UnavailableError
from monitor.store import Connection, DatabaseSettings, Store, TablesError
from tests.store.opened import opened


def stop_job(connection: Connection, job: int = 1) -> int:
    return connection.execute(
        "INSERT INTO job_state (job_id, stopped_at) VALUES (%s, %s)", (job, 2.5)
    )


def jobs(connection: Connection) -> list[int]:
    return [job for (job,) in connection.query("SELECT job_id FROM job_state ORDER BY job_id")]


async def test_what_a_function_returns_is_returned_and_committed(store: Store) -> None:
    assert await store.transaction(stop_job) == 1
    assert await store.read(jobs) == [1]


async def test_an_exception_rolls_back_and_the_connection_lives_on(store: Store) -> None:
    def fail(connection: Connection) -> None:
        stop_job(connection)
        raise LookupError("on purpose")

    with pytest.raises(LookupError, match="on purpose"):
        await store.transaction(fail)
    assert await store.read(jobs) == []
    await store.transaction(stop_job)
    assert await store.read(jobs) == [1]


async def test_many_rows_parameters_and_percent_signs(store: Store) -> None:
    def insert(connection: Connection) -> None:
        rows = ((job, job / 2) for job in range(2500))
        connection.insert("job_state", ("job_id", "stopped_at"), rows)
        connection.insert(
            "job_state", ("job_id", "stopped_at"), [(1, 0.0)], "ON CONFLICT DO NOTHING"
        )

    await store.transaction(insert)
    query = "SELECT stopped_at, '100%%', %s FROM job_state WHERE job_id = %s"
    assert await store.read(lambda c: c.query(query, ("%s", 7))) == [(3.5, "100%", "%s")]
    assert await store.read(lambda c: c.query("SELECT count(*), '%' FROM job_state")) == [
        (2500, "%")
    ]


async def test_rows_that_a_table_leaves_out_in_silence_are_an_error(store: Store) -> None:
    def refuse(connection: Connection) -> None:
        if connection.dialect == "sqlite":
            connection.execute(
                "CREATE TRIGGER few BEFORE INSERT ON job_state WHEN new.job_id = 7"
                " BEGIN SELECT RAISE(IGNORE); END"
            )
            return
        connection.execute(
            "CREATE FUNCTION few() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN IF new.job_id = 7 THEN RETURN NULL; END IF; RETURN new; END $$;"
            "CREATE TRIGGER few BEFORE INSERT ON job_state FOR EACH ROW EXECUTE FUNCTION few()"
        )

    def insert(connection: Connection, suffix: str) -> None:
        rows = [(job, 0.0) for job in range(2500)]
        connection.insert("job_state", ("job_id", "stopped_at"), rows, suffix)

    await store.transaction(refuse)
    for suffix in ("", "ON CONFLICT (job_id) DO UPDATE SET stopped_at = 1"):
        with pytest.raises(TablesError, match="table job_state: a trigger, rule or policy of it"):
            await store.transaction(lambda connection, suffix=suffix: insert(connection, suffix))  # type: ignore[misc]
        assert await store.read(jobs) == []


async def test_a_reader_can_change_nothing(store: Store) -> None:
    with pytest.raises(UnavailableError, match=r"read.?only"):
        await store.read(stop_job)
    assert await store.read(jobs) == []


async def test_a_function_that_does_not_end_is_cut_off(store: Store) -> None:
    endless = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    )

    with pytest.raises(UnavailableError):
        await store.transaction(lambda c: (stop_job(c), c.query(endless)), timeout=0.3)
    assert await store.read(jobs) == []
    await store.transaction(stop_job)
    assert await store.read(jobs) == [1]


async def test_one_that_waits_too_long_never_runs(store: Store) -> None:
    released = threading.Event()

    def slow(connection: Connection) -> None:
        released.wait(60)  # stands for work that takes long

    await store.transaction(jobs)
    others = [asyncio.create_task(store.transaction(slow)) for _ in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(UnavailableError, match="busy"):
        await store.transaction(stop_job, timeout=0.05)
    released.set()
    await asyncio.gather(*others)
    assert await store.read(jobs) == []


async def test_listeners_hear_what_was_committed_and_nothing_else(store: Store) -> None:
    def tell(connection: Connection, *payloads: str, fail: bool = False) -> None:
        for payload in payloads:
            connection.notify("news", payload)
        connection.notify("other", "not for them")
        if fail:
            raise LookupError

    async with contextlib.aclosing(store.listen("news")) as news:
        assert await anext(news) is None
        with pytest.raises(LookupError):
            await store.transaction(lambda c: tell(c, "lost", fail=True))
        await store.transaction(lambda c: tell(c, "one", "two"))
        assert [await anext(news), await anext(news)] == ["one", "two"]


async def test_reset_drops_what_is_there_and_makes_the_tables_anew(store: Store) -> None:
    await store.transaction(stop_job)
    await store.reset()
    assert await store.read(jobs) == []
    assert await store.migrate() == []
    await store.transaction(stop_job)


@pytest.mark.integration_test
async def test_missing_tables_name_the_command_to_run_and_are_found_later(
    postgres_url: str,
) -> None:
    settings = DatabaseSettings(url=postgres_url)
    async with opened(settings.replace(schema="other")) as other:
        store = type(other)(settings)  # type: ignore[call-arg]
        try:
            with pytest.raises(
                TablesError, match=r"schema website_availability.*configure-database"
            ):
                await store.transaction(jobs)
            await store.migrate()
            assert await store.transaction(jobs) == []
        finally:
            await store.close()
