"""Loads the jobs of a config, from any source, for commands."""

from __future__ import annotations

from monitor.daemon.config import LoadedConfig
from monitor.errors import SettingError
from monitor.probes.part import make_source
from monitor.probes.source import JobList

__all__ = ["load_configured_jobs"]


async def load_configured_jobs(loaded: LoadedConfig) -> JobList:
    """Load the jobs; raises ConfigError for invalid jobs or settings."""
    settings = loaded.config.probes
    if settings is None:
        raise loaded.error(SettingError(("probes",), "the section is missing"))
    try:
        if settings.source != "database":
            return await make_source(settings).load()
        from monitor.probes.jobs_table import DatabaseJobs
        from monitor.store import open_store

        store = open_store(loaded.config.database)
        await store.start()
        try:
            return await DatabaseJobs(store).load()
        finally:
            await store.close()
    except SettingError as error:
        raise loaded.error(error.under("probes")) from None
