"""``configure-database -c FILE``: creates or upgrades the tables, and imports sites."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from monitor.commands.terminal_text import terminal_text
from monitor.daemon.config import Config, LoadedConfig, load
from monitor.errors import MonitorError, SettingError, UsageError
from monitor.part import counted
from monitor.store import DatabaseSettings, Store, open_store

if TYPE_CHECKING:
    from monitor.probes.source import JobList

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "-c", "--config", metavar="FILE", help="the config (default: built-in defaults)"
    )
    parser.add_argument(
        "--import",
        dest="jobs",
        metavar="FILE",
        help="import the jobs of this JSON or YAML file as sites; existing ids are updated",
    )
    parser.add_argument(
        "--admin-url",
        metavar="URL",
        help="connect as this PostgreSQL administrator (with the password in PGPASSWORD or"
        " ~/.pgpass) and make the role of database.url the owner of the schema",
    )
    parser.add_argument(
        "--copy-from",
        metavar="FILE",
        help="copy all rows of this SQLite file to PostgreSQL, while the daemon is stopped; can be"
        " run again after an interruption",
    )


def run(args: argparse.Namespace) -> int:
    """Create or upgrade the tables; safe to run again, and concurrently."""
    try:
        return _run(args)
    except KeyboardInterrupt:
        # Elsewhere that is an end like any other. Here not all may be done that others rely on.
        raise MonitorError("interrupted; run this again") from None


def _run(args: argparse.Namespace) -> int:
    loaded = load(args.config)
    settings = loaded.config.database
    owner = None
    if args.copy_from is not None and settings.url is None:
        raise UsageError("--copy-from: copies to PostgreSQL, and the config has no database.url")
    if args.admin_url is not None:
        owner = _owner(loaded, settings)
        settings = _as_administrator(settings, args.admin_url)
    copying = args.copy_from is not None
    status = asyncio.run(_configure(settings, owner, args.jobs, copying=copying))
    if copying:
        # As the daemon's role: an administrator may not own the tables.
        asyncio.run(_copy(loaded.config, Path(args.copy_from)))
    return status


def _owner(loaded: LoadedConfig, settings: DatabaseSettings) -> str:
    user = urlsplit(settings.url).username if settings.url else None
    if not user:
        problem = "must name the role (postgresql://ROLE@...) that will own the schema"
        raise loaded.error(SettingError(("database", "url"), problem))
    return unquote(user)


def _as_administrator(settings: DatabaseSettings, url: str) -> DatabaseSettings:
    try:
        scheme, password = urlsplit(url).scheme, urlsplit(url).password
    except ValueError:
        raise UsageError("--admin-url: is not a URL") from None
    if scheme not in {"postgresql", "postgres"}:
        raise UsageError("--admin-url: must start with postgresql://")
    if password is not None:
        raise UsageError("--admin-url: must not contain a password; use PGPASSWORD or ~/.pgpass")
    changed: DatabaseSettings = settings.replace(url=url, password_file=None)
    try:
        changed.verify()
    except SettingError as error:
        raise UsageError(f"--admin-url: {error.problem}") from None
    return changed


async def _copy(config: Config, file: Path) -> None:
    from monitor.aggregation.postgres_rows import PARTITION_S
    from monitor.logs.settings import LogsSettings
    from monitor.logs.tables import partition_width_s
    from monitor.store.copying import copy_file, opened_alone

    timewindow = (config.logs or LogsSettings()).timewindow
    widths_s = {"availability_result": PARTITION_S, "log_entry": partition_width_s(timewindow)}
    store = open_store(config.database)
    try:
        with opened_alone(file) as source:
            await copy_file(source, store, widths_s=widths_s, said=print)
        print(f"{file}: copied to {store.server}; every table has as many rows")
    finally:
        await store.close()


async def _read(jobs: str) -> JobList:
    from monitor.probes.jobs_file import read_jobs

    try:
        return await asyncio.to_thread(read_jobs, Path(jobs), own=True)
    except SettingError as error:
        raise UsageError(f"--import: {error.problem}") from None


async def _bring_over(store: Store) -> int:
    """Take the sites of an earlier monitor; return 1 if some cannot be taken."""
    from monitor.probes.earlier_sites import bring_over, earlier_results

    brought = await bring_over(store)
    if brought is None:
        return 0
    for job in brought.jobs:
        print(f"site {job.id}: brought over: {terminal_text(job.shown_url)}")
    for line in brought.refused:
        print(f"recodex-monitor: left: {terminal_text(line)}", file=sys.stderr)
    left = f", {len(brought.refused)} left: mend or delete them, and run this again"
    print(f"{counted(len(brought.jobs), 'site')} brought over{left if brought.refused else ''}")
    results = await earlier_results(store)
    if results is not None:
        print(
            f"availability_monitor_metrics: {counted(results, 'row')} left alone: they do not say"
            " which site they are of"
        )
    return 1 if brought.refused else 0


async def _configure(
    settings: DatabaseSettings, owner: str | None, jobs: str | None, *, copying: bool
) -> int:
    found = None if jobs is None else await _read(jobs)
    store = open_store(settings)
    store.copying = copying
    try:
        applied = await store.migrate(owner=owner)
        where = store.server
        if store.dialect == "postgresql":
            where = f"{where}, schema {settings.schema}"
        print(f"{where}: {'applied ' + ', '.join(applied) if applied else 'up to date'}")
        status = await _bring_over(store)
        if found is None:
            return status
        from monitor.probes.jobs_table import save_jobs

        saved = await store.transaction(lambda connection: save_jobs(connection, found.jobs))
        added = counted(saved.added, "site")
        print(f"{jobs}: {added} added, {saved.changed} changed, {saved.same} unchanged")
        for line in found.refused:
            print(f"recodex-monitor: refused: {terminal_text(line)}", file=sys.stderr)
        return 1 if found.refused else status
    finally:
        await store.close()
