"""Whether each file that the daemon writes is a file of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from monitor.errors import SettingError, SettingPath, key_text
from monitor.files.reading import file_identity, file_kind
from monitor.settings import state_directory

if TYPE_CHECKING:
    from monitor.daemon.config import Config

__all__ = ["file_problems"]

# What SQLite keeps next to a file: https://sqlite.org/tempfiles.html
_NEXT_TO_SQLITE = ("-wal", "-shm", "-journal")


def file_problems(config: Config) -> Iterator[SettingError]:
    """Yield an error for each file that two keys name, by a link, too, and that is no file."""
    known: dict[object, SettingPath] = {}
    for key, file in _databases(config):
        kind = file_kind(file)
        if kind is not None:
            yield SettingError(key, f"{file} is {kind}, not a file")
            continue
        yield from _taken(known, key, file, _NEXT_TO_SQLITE)
    log = config.logger.file
    # /dev/null, /dev/stdout and the like can be shared.
    if file_kind(log) is None:
        rotated = [f".{number}" for number in range(1, config.logger.rotations + 1)]
        yield from _taken(known, ("logger", "file"), log, rotated)
    # The daemon does not write these itself.
    if config.api is not None and config.api.tokens_file:
        yield from _taken(known, ("api", "tokens_file"), config.api.tokens_file)
    if config.probes is not None and config.probes.jobs_file:
        yield from _taken(known, ("probes", "jobs_file"), config.probes.jobs_file)


def _databases(config: Config) -> Iterator[tuple[SettingPath, str]]:
    relay = config.relay
    on = [config.probes, config.aggregation, config.cluster, config.alerts]
    if config.database.url is None and any(each is not None for each in (*on, config.logs)):
        yield ("database", "file"), str(config.database.sqlite_file())
    if any(each is not None for each in on):
        yield ("bus", "file"), str(config.bus.path())
    if relay is not None and relay.history_file is not None:
        yield ("relay", "history_file"), str(state_directory() / relay.history_file)


def _taken(
    known: dict[object, SettingPath],
    key: SettingPath,
    file: str,
    others: list[str] | tuple[str, ...] = (),
) -> Iterator[SettingError]:
    """Note the names of a file and those derived from it; yield an error if one is taken."""
    name = os.path.realpath(file)
    names: list[object] = [name, *(f"{name}{suffix}" for suffix in others)]
    identity = file_identity(file)
    if identity is not None:
        # A hard link has another name.
        names.append(identity)
    for each in names:
        other = known.setdefault(each, key)
        if other != key:
            yield SettingError(key, f"{file} is the file of {key_text(other)}, too; choose another")
            return
