"""What an operator should know of a config that is good: said, and nothing refused for it."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from monitor.daemon.config import Config, LoadedConfig
from monitor.errors import SettingError
from monitor.web.settings import ApiSettings

__all__ = ["remarks"]


def remarks(loaded: LoadedConfig) -> list[str]:
    """Return a line for each: file, line, key and what is remarkable. Looks at files' modes."""
    return [str(loaded.error(remark)) for remark in _remarks(loaded.config)]


def _remarks(config: Config) -> Iterator[SettingError]:
    zeromq = config.logs is not None and config.logs.zeromq_uri is not None
    if config.logs is not None and config.api is None and not zeromq:
        yield SettingError(
            ("logs",),
            "nothing can upload or read logs here: there is neither a section api nor"
            " logs.zeromq_uri",
        )
    file = (config.api or ApiSettings()).tokens_file
    if file is None or not (config.api or zeromq):
        return
    try:
        mode = stat.S_IMODE(Path(file).stat().st_mode)
    except OSError:
        return  # reading it reports what is wrong
    if mode & stat.S_IWOTH:
        yield SettingError(
            ("api", "tokens_file"),
            f"{file} can be written by anyone (mode {mode:04o}), who so can make themselves an"
            f" admin: chmod o-w {file}",
        )
