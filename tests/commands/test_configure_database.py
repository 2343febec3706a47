"""The command configure-database, as an operator runs it."""

from __future__ import annotations

import concurrent.futures
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.servers.postgres import PostgresServer

pytestmark = pytest.mark.integration_test


def configure(
    directory: Path, *arguments: str, **database: Any
) -> subprocess.CompletedProcess[str]:
    file = directory / "config.yml"
    file.write_text(json.dumps({"database": database}))
    return subprocess.run(
        [sys.executable, "-m", "monitor", "configure-database", "-c", str(file), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "STATE_DIRECTORY": str(directory)},
    )


def test_sqlite_is_made_once_and_filled_from_a_file(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.json"
    jobs.write_text(
        json.dumps(
            [{"id": 1, "url": "https://example.org/"}, {"id": 2, "url": "nonsense"}, {"id": 3}]
        )
    )
    first = configure(tmp_path, "--import", str(jobs))
    assert first.returncode == 1
    created, imported = first.stdout.splitlines()
    assert created.startswith(f"database {tmp_path}/monitor.db: applied 0001 availability")
    assert imported == f"{jobs}: 1 site added, 0 changed, 0 unchanged"
    assert len(first.stderr.splitlines()) == 2
    assert "job 2" in first.stderr
    jobs.write_text(json.dumps([{"id": 1, "url": "https://example.net/"}]))
    second = configure(tmp_path, "--import", str(jobs))
    assert (second.returncode, second.stderr) == (0, "")
    assert second.stdout.splitlines() == [
        f"database {tmp_path}/monitor.db: up to date",
        f"{jobs}: 0 sites added, 1 changed, 0 unchanged",
    ]


def test_a_file_that_cannot_be_imported_leaves_no_tables(tmp_path: Path) -> None:
    done = configure(tmp_path, "--import", str(tmp_path / "nothing.json"))
    assert done.returncode == 2
    assert not (tmp_path / "monitor.db").exists()


@pytest.mark.parametrize(
    ("arguments", "database", "status", "problem"),
    [
        (["--import", "/nowhere/jobs.json"], {}, 2, "--import: cannot read /nowhere/jobs.json"),
        (["--admin-url", "postgresql://a:b@h/d"], {"url": "postgresql://m@h/d"}, 2, "password"),
        (["--admin-url", "postgresql://a@h/d"], {}, 78, "database.url"),
        (
            ["--admin-url", "mysql://a@h/d"],
            {"url": "postgresql://m@h/d"},
            2,
            "--admin-url: must start with postgresql://\n",
        ),
        (
            ["--admin-url", "postgresql://[h/d"],
            {"url": "postgresql://m@h/d"},
            2,
            "--admin-url: is not a URL",
        ),
        ([], {"url": "mysql://h/d"}, 78, "must start with postgresql://"),
        ([], {"url": "postgresql://127.0.0.1"}, 78, "must name a database"),
        ([], {"url": "postgresql://h/d", "schema": "Robert'; --"}, 78, "schema"),
        ([], {"url": "postgresql://h/d", "password_file": "/nowhere"}, 78, "cannot read /nowhere"),
        ([], {"url": "postgresql://m:hush@127.0.0.1:1/d"}, 75, "127.0.0.1:1"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    tmp_path: Path, arguments: list[str], database: dict[str, Any], status: int, problem: str
) -> None:
    done = configure(tmp_path, *arguments, **database)
    assert done.returncode == status
    (line,) = done.stderr.splitlines()
    assert line.startswith("recodex-monitor: ")
    assert problem in line + "\n"
    assert "hush" not in line


def test_two_at_once_make_the_tables_once(postgres_url: str, tmp_path: Path) -> None:
    def run(number: int) -> subprocess.CompletedProcess[str]:
        directory = tmp_path / str(number)
        directory.mkdir()
        return configure(directory, url=postgres_url)

    with concurrent.futures.ThreadPoolExecutor() as threads:
        done = list(threads.map(run, range(2)))
    assert [(item.returncode, item.stderr) for item in done] == [(0, "")] * 2
    said = sorted(item.stdout.partition("website_availability: ")[2].split()[0] for item in done)
    assert said == ["applied", "up"]


def test_an_administrator_prepares_it_for_a_role_without_rights(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    name = postgres_url.rpartition("/")[2]
    role = f"role_{name}"
    url = postgres_server.url(name, role)
    no_role = configure(tmp_path, "--admin-url", postgres_url, url=url)
    assert (no_role.returncode, len(no_role.stderr.splitlines())) == (1, 1)
    assert "does not exist" in no_role.stderr
    postgres_server.execute(f"CREATE ROLE {role} LOGIN")
    postgres_server.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
    postgres_server.execute(f"GRANT CONNECT ON DATABASE {name} TO {role}")
    alone = configure(tmp_path, url=url)
    assert alone.returncode == 1
    assert "permission denied" in alone.stderr
    assert len(alone.stderr.splitlines()) == 1
    assert configure(tmp_path, "--admin-url", postgres_url, url=url).returncode == 0
    owners = postgres_server.execute(
        "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class"
        " WHERE relnamespace = 'website_availability'::regnamespace",
        name,
    )
    assert owners == [(role,)]
    again = configure(tmp_path, url=url)
    assert (again.returncode, again.stdout.rstrip()[-10:]) == (0, "up to date")
