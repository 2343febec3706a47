"""Whether each file that the daemon writes is a file of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from monitor.bus.settings import BusSettings
from monitor.daemon.logfile import LoggerSettings
from monitor.errors import SettingError, SettingPath, key_text
from monitor.files.reading import file_identity, file_kind
from monitor.probes.settings import ProbesSettings
from monitor.relay.settings import RelaySettings
from monitor.settings import Section, state_directory
from monitor.store.settings import DatabaseSettings
from monitor.web.settings import ApiSettings

__all__ = ["file_problems"]

# What SQLite keeps next to a file: https://sqlite.org/tempfiles.html
_NEXT_TO_SQLITE = ("-wal", "-shm", "-journal")
# The sections that use the bus; these and the logs use the database.
_ON_THE_BUS = ("probes", "aggregation", "cluster", "alerts")


def file_problems(sections: Mapping[str, Section]) -> Iterator[SettingError]:
    """Yield an error for each file that two keys name, by a link, too, or that cannot be one.

    Takes the present sections of the config by name.
    """
    known: dict[object, SettingPath] = {}
    for key, file, derived in _files(sections):
        kind = file_kind(file)
        if key == ("logger", "file"):
            if kind is not None:
                # /dev/null, /dev/stdout and the like can be shared.
                continue
        elif derived and kind is not None:
            yield SettingError(key, f"{file} is {kind}, not a file")
            continue
        name = os.path.realpath(file)
        # A hard link has another name.
        for each in (name, *(f"{name}{suffix}" for suffix in derived), file_identity(file)):
            other = key if each is None else known.setdefault(each, key)
            if other != key:
                problem = f"{file} is the file of {key_text(other)}, too; choose another"
                yield SettingError(key, problem)
                break


def _files(sections: Mapping[str, Section]) -> Iterator[tuple[SettingPath, str, Sequence[str]]]:
    """Yield key, file, and what is added to its name for files next to it."""
    database, bus = sections.get("database"), sections.get("bus")
    on_the_bus = any(name in sections for name in _ON_THE_BUS)
    stores = on_the_bus or "logs" in sections
    if stores and isinstance(database, DatabaseSettings) and database.url is None:
        yield ("database", "file"), str(database.sqlite_file()), _NEXT_TO_SQLITE
    if isinstance(bus, BusSettings) and on_the_bus:
        yield ("bus", "file"), str(bus.path()), _NEXT_TO_SQLITE
    relay, log = sections.get("relay"), sections.get("logger")
    if isinstance(relay, RelaySettings) and relay.history_file is not None:
        file = str(state_directory() / relay.history_file)
        yield ("relay", "history_file"), file, _NEXT_TO_SQLITE
    if isinstance(log, LoggerSettings):
        rotated = [f".{number}" for number in range(1, log.rotations + 1)]
        yield ("logger", "file"), log.file, rotated
    # The daemon writes none of these itself.
    api, probes = sections.get("api"), sections.get("probes")
    if isinstance(api, ApiSettings) and api.tokens_file:
        yield ("api", "tokens_file"), api.tokens_file, ()
    if isinstance(probes, ProbesSettings) and probes.jobs_file:
        yield ("probes", "jobs_file"), probes.jobs_file, ()
