"""``configure-database -c FILE``: create or upgrade the tables, and fill the sites from a file."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from monitor.commands.terminal_text import terminal_text
from monitor.daemon.config import LoadedConfig, load
from monitor.errors import SettingError, UsageError
from monitor.store import DatabaseSettings, open_store

if TYPE_CHECKING:
    from monitor.probes.source import JobList

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("-c", "--config", metavar="FILE", help="the config (defaults without)")
    parser.add_argument(
        "--import",
        dest="jobs",
        metavar="FILE",
        help="add the jobs of this JSON or YAML file to the sites; those with a known id change",
    )
    parser.add_argument(
        "--admin-url",
        metavar="URL",
        help="connect as this PostgreSQL administrator (its password comes from PGPASSWORD or"
        " ~/.pgpass) and give the schema to the role of database.url",
    )


def run(args: argparse.Namespace) -> int:
    """Say what was done; safe to run again, and by two at once."""
    loaded = load(args.config)
    settings = loaded.config.database
    owner = None
    if args.admin_url is not None:
        owner = _owner(loaded, settings)
        settings = _as_administrator(settings, args.admin_url)
    return asyncio.run(_configure(settings, owner, args.jobs))


def _owner(loaded: LoadedConfig, settings: DatabaseSettings) -> str:
    user = urlsplit(settings.url).username if settings.url else None
    if not user:
        problem = "must name the daemon's role (postgresql://ROLE@...) to give it the schema"
        raise loaded.error(SettingError(("database", "url"), problem))
    return unquote(user)


def _as_administrator(settings: DatabaseSettings, url: str) -> DatabaseSettings:
    if urlsplit(url).password is not None:
        raise UsageError(
            "--admin-url: a password does not belong here; use PGPASSWORD or ~/.pgpass"
        )
    changed: DatabaseSettings = settings.replace(url=url, password_file=None)
    try:
        changed.verify()
    except SettingError as error:
        raise UsageError(f"--admin-url: {error.problem}") from None
    return changed


async def _read(jobs: str) -> JobList:
    from monitor.probes.jobs_file import read_jobs

    try:
        return await asyncio.to_thread(read_jobs, Path(jobs), own=True)
    except SettingError as error:
        raise UsageError(f"--import: {error.problem}") from None


async def _configure(settings: DatabaseSettings, owner: str | None, jobs: str | None) -> int:
    found = None if jobs is None else await _read(jobs)
    store = open_store(settings)
    try:
        applied = await store.migrate(owner=owner)
        where = store.server
        if store.dialect == "postgresql":
            where = f"{where}, schema {settings.schema}"
        print(f"{where}: {'applied ' + ', '.join(applied) if applied else 'up to date'}")
        if found is None:
            return 0
        from monitor.probes.jobs_table import save_jobs

        saved = await store.transaction(lambda connection: save_jobs(connection, found.jobs))
        print(f"{jobs}: {saved.added} sites added, {saved.changed} changed, {saved.same} as before")
        for line in found.refused:
            print(f"recodex-monitor: refused: {terminal_text(line)}", file=sys.stderr)
        return 1 if found.refused else 0
    finally:
        await store.close()
