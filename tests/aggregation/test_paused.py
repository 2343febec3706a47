"""Tables that somebody changed: results are counted or wait; none is rejected."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monitor.part import Health
from monitor.store import DatabaseSettings
from tests.aggregation.plain import Tables, plain_tables, record, result
from tests.aggregation.running import NOW, running
from tests.servers.postgres import PostgresServer
from tests.store.opened import opened
from tests.waiting import until

pytestmark = pytest.mark.integration_test

DAY = int(NOW // 86400 * 86400)
OWN = f"availability_result_{DAY}_{DAY + 86400}"
COLUMNS = "job_id, scheduled_at, checked_at, url, kind, up"

Change = tuple[str, str, str]
Value = dict[str, Any] | bytes

# What an administrator did, what the state says, and what mends it.
PAUSING: dict[str, Change] = {
    "detached": (
        f"ALTER TABLE availability_result DETACH PARTITION {OWN}",
        f"the partition {OWN} \\(2023-11-14 00:00:00Z to .*\\) is detached; attach it again",
        f"ALTER TABLE availability_result ATTACH PARTITION {OWN}"
        f" FOR VALUES FROM ({DAY}) TO ({DAY + 86400})",
    ),
    "default": (
        f"DROP TABLE {OWN}; CREATE TABLE rest PARTITION OF availability_result DEFAULT;"
        f" INSERT INTO rest ({COLUMNS}) VALUES (9, {NOW}, {NOW}, '', 'http', true)",
        "the DEFAULT partition rest has rows of 2023-11-14",
        "ALTER TABLE availability_result DETACH PARTITION rest",
    ),
    "check": (
        "ALTER TABLE availability_result ADD CONSTRAINT few CHECK (job_id < 1) NOT VALID",
        'violates check constraint "few"; nothing is lost',
        "ALTER TABLE availability_result DROP CONSTRAINT few",
    ),
    "not null": (
        "ALTER TABLE availability_result ADD COLUMN team text NOT NULL DEFAULT 'x';"
        "ALTER TABLE availability_result ALTER COLUMN team DROP DEFAULT",
        'null value in column "team"',
        "ALTER TABLE availability_result DROP COLUMN team",
    ),
    "narrow": (
        "ALTER TABLE availability_result ALTER COLUMN url TYPE varchar(30)",
        "value too long for type character varying",
        "ALTER TABLE availability_result ALTER COLUMN url TYPE text",
    ),
    "number": (
        "ALTER TABLE availability_result ALTER COLUMN producer TYPE smallint",
        "smallint out of range",
        "ALTER TABLE availability_result ALTER COLUMN producer TYPE bigint",
    ),
    "offsets as text": (
        "ALTER TABLE consumed_offset ALTER COLUMN next_offset TYPE text",
        "consumed_offset: the column next_offset is text, not bigint; change the type back",
        "ALTER TABLE consumed_offset ALTER COLUMN next_offset TYPE bigint"
        " USING next_offset::bigint",
    ),
    "numeric": (
        "ALTER TABLE availability_result ALTER COLUMN response_time  TYPE numeric(3, 1)",
        r"the column response_time is numeric\(3,1\), not double precision",
        "ALTER TABLE availability_result ALTER COLUMN response_time TYPE double precision",
    ),
    "without zone": (
        "ALTER TABLE availability_metric ALTER COLUMN dt TYPE timestamp",
        "the column dt is timestamp without time zone, not timestamp with time zone",
        "ALTER TABLE availability_metric ALTER COLUMN dt TYPE timestamptz",
    ),
    "json": (
        "ALTER TABLE availability_metric ALTER COLUMN data TYPE json",
        "the column data is json, not jsonb",
        "ALTER TABLE availability_metric ALTER COLUMN data TYPE jsonb",
    ),
    "enum": (
        "CREATE TYPE kinds AS ENUM ('http'); ALTER TABLE availability_result"
        " ALTER COLUMN kind TYPE kinds USING kind::kinds",
        "the column kind is kinds, not text",
        "ALTER TABLE availability_result ALTER COLUMN kind TYPE text",
    ),
    "generated": (
        "ALTER TABLE availability_result DROP COLUMN quorum;"
        "ALTER TABLE availability_result ADD COLUMN quorum int GENERATED ALWAYS AS (1) STORED",
        'non-DEFAULT value into column "quorum"',
        "ALTER TABLE availability_result ALTER COLUMN quorum DROP EXPRESSION",
    ),
    "trigger": (
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'not today'; END $$;"
        "CREATE TRIGGER no BEFORE INSERT ON availability_result FOR EACH ROW EXECUTE FUNCTION no()",
        "not today",
        "DROP TRIGGER no ON availability_result",
    ),
    "trigger that changes the key": (
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN new.location := 'x'; RETURN new; END $$;"
        "CREATE TRIGGER no BEFORE INSERT ON availability_result FOR EACH ROW EXECUTE FUNCTION no()",
        "it gives back other values of job_id, scheduled_at or location",
        "DROP TRIGGER no ON availability_result",
    ),
    "silent trigger": (
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
        "CREATE TRIGGER no BEFORE INSERT ON availability_result FOR EACH ROW EXECUTE FUNCTION no()",
        "a trigger, rule or policy of it left out 3 rows",
        "DROP TRIGGER no ON availability_result",
    ),
    "silent trigger of the metrics": (
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
        "CREATE TRIGGER no BEFORE INSERT ON availability_metric FOR EACH ROW EXECUTE FUNCTION no()",
        "table availability_metric: a trigger",
        "DROP TRIGGER no ON availability_metric",
    ),
    "silent trigger of the rejects": (
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
        "CREATE TRIGGER no BEFORE INSERT ON rejected_message FOR EACH ROW EXECUTE FUNCTION no()",
        "table rejected_message: a trigger, rule or policy of it left out a row",
        "DROP TRIGGER no ON rejected_message",
    ),
    # A fault of arithmetic looks like one of the data.
    "deferred trigger": (
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RETURN 1 / (new.job_id - new.job_id); END $$;"
        "CREATE CONSTRAINT TRIGGER no AFTER INSERT ON availability_result"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION no()",
        r"division by zero \(PL/pgSQL function no",
        "DROP TRIGGER no ON availability_result",
    ),
    "generated column of the rejects": (
        "ALTER TABLE rejected_message ADD COLUMN part int"
        ' GENERATED ALWAYS AS (1 / nullif(least("offset", 0), 0) + 1 / ("offset" - "offset"))'
        " STORED",
        "division by zero; were the columns changed",
        "ALTER TABLE rejected_message DROP COLUMN part",
    ),
    "policy of the offsets": (
        "ALTER TABLE consumed_offset ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;"
        "CREATE POLICY look ON consumed_offset FOR SELECT USING (true)",
        "table consumed_offset: a trigger, rule or policy of it left out a row",
        "ALTER TABLE consumed_offset DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY",
    ),
    "padded": (
        "ALTER TABLE availability_result ALTER COLUMN location TYPE char(9)",
        r"the column location is character\(9\), not text",
        "ALTER TABLE availability_result ALTER COLUMN location TYPE text",
    ),
    "no primary key": (
        "ALTER TABLE availability_result DROP CONSTRAINT availability_result_pkey",
        "no unique or exclusion constraint matching",
        "ALTER TABLE availability_result ADD PRIMARY KEY (job_id, scheduled_at, location)",
    ),
    "privilege": (
        "REVOKE INSERT ON availability_metric FROM {role}",
        "permission denied for table availability_metric",
        "GRANT INSERT ON availability_metric TO {role}",
    ),
    "renamed": (
        "ALTER TABLE consumed_offset RENAME TO kept",
        'relation "consumed_offset" does not exist',
        "ALTER TABLE kept RENAME TO consumed_offset",
    ),
}


@pytest.fixture(autouse=True)
def _changes_are_seen_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.store.columns._FRESH_S", 0.0)


@pytest.fixture
def run(postgres_server: PostgresServer, postgres_url: str) -> Callable[[str], None]:
    name = postgres_url.rpartition("/")[2]

    def run(sql: str) -> None:
        role = f"daemon_{name}"
        postgres_server.execute(
            f"SET search_path = website_availability; {sql.replace('{role}', role)}", name
        )

    return run


@pytest.fixture
def database(postgres_server: PostgresServer, postgres_url: str) -> DatabaseSettings:
    """The database as the daemon's own role sees it."""
    name = postgres_url.rpartition("/")[2]
    postgres_server.execute(f"CREATE ROLE daemon_{name} LOGIN")
    postgres_server.execute(f"GRANT CREATE ON DATABASE {name} TO daemon_{name}")
    return DatabaseSettings(url=postgres_server.url(name, f"daemon_{name}"))


@pytest.mark.parametrize("kind", PAUSING)
async def test_consumption_pauses_with_the_reason_and_counts_all_once_mended(
    kind: str,
    database: DatabaseSettings,
    run: Callable[[str], None],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    change, said, mend = PAUSING[kind]
    first = result(1, NOW - 2 * 86400)
    more = {"url": f"https://example.org/{'x' * 40}", "producer": 70_000}
    later: list[Value] = [result(job, NOW + job, **more) for job in (1, 2, 2)]
    later += [b"poison", first, result(2, NOW + 1, **more)]
    async with opened(database):
        pass
    with caplog.at_level(logging.INFO, "monitor.aggregation"):
        async with running(tmp_path, database=database, flush_interval=0.1) as now:
            await now.publish(first)
            await until(lambda: now.part.statistics.new == 1)
            run(change)
            await now.publish(*later)
            await until(lambda: now.part.state().health is Health.DEGRADED)
            summary = now.part.state().summary
            assert re.search(said, summary), summary
            assert summary.endswith("consumption paused, trying again")
            assert now.part.statistics.rejected == 0
            await until(lambda: sum(now.part.statistics.lag.values()) == len(later))
            run(mend)
            await until(lambda: now.part.state().health is Health.OK)
            await until(lambda: now.part.statistics.rejected == 1)
            found = await now.tables()
    values = [first, *later]
    expected = plain_tables(record(offset, value) for offset, value in enumerate(values))
    assert _counted(found) == _counted(expected)
    lines = [line for line in caplog.messages if "consumption" in line]
    assert len(lines) == 2, lines


def _counted(tables: Tables) -> object:
    return tables.results.keys() - {(9, NOW)}, tables.metrics, len(tables.rejected)


WORKING = {
    "a partition that overlaps": "CREATE TABLE mine PARTITION OF availability_result"
    f" FOR VALUES FROM ({DAY + 3600.5}) TO ({DAY + 90000})",
    "partitions without ends": "CREATE TABLE a PARTITION OF availability_result"
    f" FOR VALUES FROM (MINVALUE) TO ({DAY + 3000});"
    "CREATE TABLE b PARTITION OF availability_result"
    f" FOR VALUES FROM ({DAY + 50000}) TO (MAXVALUE)",
    "everything else": "CREATE TABLE rest PARTITION OF availability_result DEFAULT;"
    "ALTER TABLE availability_result ADD COLUMN team text;"
    "ALTER TABLE rejected_message ADD COLUMN team text DEFAULT 'web';"
    "ALTER TABLE availability_metric ADD COLUMN team text DEFAULT 'web';"
    "ALTER TABLE availability_metric DROP COLUMN data;"
    "ALTER TABLE availability_metric ADD COLUMN data jsonb NOT NULL;"
    "CREATE DOMAIN address AS text CHECK (value <> '');"
    "ALTER TABLE availability_result ALTER COLUMN url TYPE address,"
    " ALTER COLUMN error TYPE varchar(200), ALTER COLUMN status TYPE smallint;"
    "CREATE INDEX mine ON availability_result (kind);"
    "CREATE TABLE seen (job_id bigint);"
    "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
    " $$ BEGIN INSERT INTO website_availability.seen VALUES (new.job_id); RETURN new; END $$;"
    "CREATE TRIGGER see AFTER INSERT ON availability_result FOR EACH ROW EXECUTE FUNCTION see()",
}


@pytest.mark.parametrize("kind", WORKING)
async def test_results_are_counted_as_ever_with(
    kind: str, database: DatabaseSettings, run: Callable[[str], None], tmp_path: Path
) -> None:
    async with opened(database):
        pass
    run(WORKING[kind])
    places = ((1, 5), (2, 4000), (2, 60000), (1, 5))
    values: list[Value] = [*(result(job, DAY + second) for job, second in places), b"poison"]
    async with running(tmp_path, database=database, flush_interval=0.1) as now:
        await now.publish(*values)
        await until(lambda: now.part.statistics.rejected == 1)
        found = await now.tables()
    expected = plain_tables(record(offset, value) for offset, value in enumerate(values))
    assert _counted(found) == _counted(expected)


async def test_results_with_characters_that_the_database_does_not_have_are_counted(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    name = f"latin_{postgres_url.rpartition('/')[2]}"
    postgres_server.execute(f"CREATE DATABASE {name} ENCODING LATIN1 TEMPLATE template0")
    database = DatabaseSettings(url=postgres_server.url(name))
    async with opened(database):
        pass
    errors = ("école", "→ 漢", "fin", "😀")
    values = [result(job, NOW, up=False, error=error) for job, error in enumerate(errors, 1)]
    async with running(tmp_path, database=database, flush_interval=0.1) as now:
        await now.publish(*values)
        await until(lambda: now.part.statistics.new + now.part.statistics.rejected == 4)
        found = await now.tables()
    expected = plain_tables(record(offset, value) for offset, value in enumerate(values))
    assert (found.results, found.metrics, found.rejected) == (
        expected.results,
        expected.metrics,
        {},
    )
