"""Warnings about a valid config."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from monitor.daemon.config import Config, LoadedConfig
from monitor.errors import SettingError
from monitor.web.settings import ApiSettings

__all__ = ["remarks"]


def remarks(loaded: LoadedConfig) -> list[str]:
    """Return the warnings, each with file, line and key; also checks modes of files."""
    return [str(loaded.error(remark)) for remark in _remarks(loaded.config)]


def _remarks(config: Config) -> Iterator[SettingError]:
    zeromq = config.logs is not None and config.logs.zeromq_uri is not None
    if config.logs is not None and config.api is None and not zeromq:
        yield SettingError(
            ("logs",),
            "logs cannot be uploaded or read: the config has neither a section api nor"
            " logs.zeromq_uri",
        )
    file = (config.api or ApiSettings()).tokens_file
    if file is None or not (config.api or zeromq):
        return
    try:
        mode = stat.S_IMODE(Path(file).stat().st_mode)
    except OSError:
        return  # reported when it is read
    if mode & stat.S_IWOTH:
        yield SettingError(
            ("api", "tokens_file"),
            f"{file} is world-writable (mode {mode:04o}): any local user could add an admin"
            f" token; run chmod o-w {file}",
        )
