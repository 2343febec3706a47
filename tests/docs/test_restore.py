"""The commands of the guides on backup and restore, one after the other, on real databases."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from monitor.store import Connection, DatabaseSettings
from tests.docs.book import text_of
from tests.docs.fences import commands, fences
from tests.store.opened import opened
from tests.store.test_migrations import content, fill


def shell(page: str, section: str, folder: Path, url: str) -> None:
    """Run the commands of one section, with other folders."""
    text = text_of(page).partition(f"## {section}\n")[2].partition("\n## ")[0]
    state, backups = folder / "state", folder / "backups"
    state.mkdir(exist_ok=True)
    backups.mkdir(exist_ok=True)
    for fence in fences(page, text):
        for command in commands(fence):
            line = (
                command.text.replace("/var/lib/recodex-monitor", str(state))
                .replace("/var/backups", str(backups))
                .replace("-o recodex -g recodex ", "")
            )
            done = subprocess.run(
                ["bash", "-ec", line],
                capture_output=True,
                text=True,
                timeout=120,
                env={**os.environ, "DATABASE_URL": url},
            )
            assert done.returncode == 0, (line, done.stderr)


@pytest.mark.integration_test
@pytest.mark.parametrize("section", ["SQLite", "PostgreSQL"])
async def test_what_was_backed_up_is_there_after_a_restore(
    section: str,
    request: pytest.FixtureRequest,
    program: Callable[..., str],
    tmp_path: Path,
) -> None:
    url = ""
    if section == "SQLite":
        program("sqlite3", package="sqlite3")
        (tmp_path / "state").mkdir()
        settings = DatabaseSettings(file=str(tmp_path / "state" / "monitor.db"))
    else:
        url = request.getfixturevalue("postgres_url")
        settings = DatabaseSettings(url=url)

    def lose(connection: Connection) -> None:
        connection.execute("DELETE FROM availability_result")
        connection.execute("DELETE FROM log_entry")

    async with opened(settings) as store:
        await store.transaction(fill)
        before = await store.read(content)
        shell("docs/how-to/backup.md", section, tmp_path, url)
        await store.transaction(lose)
        assert await store.read(content) != before
    shell("docs/how-to/restore.md", section, tmp_path, url)
    async with opened(settings) as store:
        assert await store.read(content) == before
