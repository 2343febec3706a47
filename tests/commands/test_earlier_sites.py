"""configure-database on the tables of an earlier monitor of websites."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from monitor.probes import earlier_sites
from monitor.store import Connection, DatabaseSettings
from tests.store.opened import opened

pytestmark = pytest.mark.integration_test

EARLIER = """
CREATE SCHEMA website_availability;
CREATE TABLE website_availability.availability_monitor_config (
    amc_id serial PRIMARY KEY,
    amc_url_with_schema varchar NOT NULL,
    amc_regexp varchar,
    amc_active boolean DEFAULT true
);
CREATE TABLE website_availability.availability_monitor_metrics (
    amm_id serial PRIMARY KEY,
    amm_unix_timestamp int NOT NULL,
    amd_response_code int,
    amd_response_time real,
    amm_regexp_found boolean
);
INSERT INTO website_availability.availability_monitor_config
    (amc_url_with_schema, amc_regexp, amc_active)
VALUES ('http://www.example.com', '*', true), ('http:///www.example.com', '.*', true),
    ('http://www.example.com', 'Example .*', true), ('ftp://example.org/', NULL, true),
    ('https://a:geheim@example.org/x', '', false);
INSERT INTO website_availability.availability_monitor_metrics
    (amm_unix_timestamp, amd_response_code, amd_response_time) VALUES (1612839600, 200, 0.25);
"""


def configure(url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    config = folder / "config.yml"
    config.write_text(json.dumps({"database": {"url": url}}))
    return subprocess.run(
        [sys.executable, "-m", "monitor", "configure-database", "-c", str(config)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "STATE_DIRECTORY": str(folder)},
    )


def query(url: str, sql: str) -> list[tuple[Any, ...]]:
    import psycopg2

    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall()) if cursor.description else []
    finally:
        connection.close()


SITES = (
    "SELECT amc_id, amc_url, amc_regexp, amc_active"
    " FROM website_availability.availability_monitor_config ORDER BY amc_id"
)


def test_the_sites_of_the_earlier_monitor_are_brought_over_line_by_line(
    postgres_url: str, tmp_path: Path
) -> None:
    url = postgres_url
    query(url, EARLIER)
    first = configure(url, tmp_path)
    assert first.returncode == 1, first.stderr
    assert first.stdout.splitlines()[1:] == [
        "site 2: brought over: http:///www.example.com",
        "site 3: brought over: http://www.example.com",
        "site 5: brought over: https://a:***@example.org/x",
        "3 sites brought over, 2 left: mend or delete them, and run this again",
        "availability_monitor_metrics: 1 row left alone: they do not say which site they are of",
    ]
    bad_regexp, bad_scheme = first.stderr.splitlines()
    assert "earlier_monitor_config: row 1: body_regexp: " in bad_regexp
    assert "earlier_monitor_config: row 4: url: " in bad_scheme
    assert "geheim" not in first.stdout + first.stderr
    assert query(url, SITES) == [
        (2, "http:///www.example.com", ".*", True),
        (3, "http://www.example.com", "Example .*", True),
        (5, "https://a:geheim@example.org/x", None, False),
    ]
    # What people change here is not changed back.
    query(
        url,
        "UPDATE website_availability.availability_monitor_config SET amc_interval = 5"
        " WHERE amc_id = 3;"
        "UPDATE website_availability.earlier_monitor_config SET amc_regexp = '.' WHERE amc_id = 1;"
        "DELETE FROM website_availability.earlier_monitor_config WHERE amc_id = 4",
    )
    second = configure(url, tmp_path)
    assert (second.returncode, second.stderr) == (0, "")
    assert second.stdout.splitlines()[1:3] == [
        "site 1: brought over: http://www.example.com",
        "1 site brought over",
    ]
    third = configure(url, tmp_path)
    assert (third.returncode, len(third.stdout.splitlines())) == (0, 1)
    # New sites get new ids, past all that were there.
    query(
        url,
        "INSERT INTO website_availability.availability_monitor_config (amc_url)"
        " VALUES ('https://new.example.org/')",
    )
    assert [row[0] for row in query(url, SITES)] == [1, 2, 3, 5, 6]


async def test_an_interruption_moves_no_site_twice(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres_url
    query(url, EARLIER)
    query(
        url,
        "DELETE FROM website_availability.availability_monitor_config WHERE amc_id IN (1, 4);"
        "INSERT INTO website_availability.availability_monitor_config (amc_url_with_schema)"
        " SELECT 'http://example.org/' || n FROM generate_series(1, 7) AS n;"
        # No key keeps a table from rows that cannot be told apart.
        "ALTER TABLE website_availability.availability_monitor_config"
        " DROP CONSTRAINT availability_monitor_config_pkey;"
        "ALTER TABLE website_availability.availability_monitor_config"
        " ALTER COLUMN amc_id DROP NOT NULL;"
        "INSERT INTO website_availability.availability_monitor_config"
        " (amc_id, amc_url_with_schema) VALUES (NULL, 'http://lost.example/'),"
        " (90, 'http://one.example/'), (90, 'http://two.example/')",
    )
    monkeypatch.setattr(earlier_sites, "_AT_ONCE", 3)
    moved = 0
    true_move = earlier_sites._move

    def move(connection: Connection, after: int) -> earlier_sites.Brought:
        nonlocal moved
        found = true_move(connection, after)
        moved += 1
        if moved == 2:
            raise KeyError("the process ends before this commit")
        return found

    monkeypatch.setattr(earlier_sites, "_move", move)
    async with opened(DatabaseSettings(url=url)) as store:
        with pytest.raises(KeyError):
            await earlier_sites.bring_over(store)
        assert len(query(url, SITES)) == 3
        brought = await earlier_sites.bring_over(store)
    assert brought is not None
    assert len(brought.jobs) == 7
    again = "earlier_monitor_config: row 90: amc_id: another site has the id 90 here"
    assert brought.refused == (again, again, "earlier_monitor_config: rows without an amc_id: 1")
    assert len(query(url, SITES)) == 10
    left = query(url, "SELECT count(*) FROM website_availability.earlier_monitor_config")
    assert left == [(3,)]
