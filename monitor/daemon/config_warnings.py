"""Warnings about a valid config."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from monitor.daemon.config import Config, LoadedConfig
from monitor.errors import SettingError
from monitor.settings import address_text
from monitor.tokens import is_loopback
from monitor.web.settings import ApiSettings

__all__ = ["remarks"]


def remarks(loaded: LoadedConfig) -> list[str]:
    """Return the warnings, each with file, line and key; also checks modes of files."""
    found = [loaded.error(remark) for remark in _remarks(loaded.config)]
    return [str(remark) for remark in [*loaded.remarks, *found]]


def _remarks(config: Config) -> Iterator[SettingError]:
    zeromq = config.logs is not None and config.logs.zeromq_uri is not None
    if config.logs is not None and config.api is None and not zeromq:
        yield SettingError(
            ("logs",),
            "logs cannot be uploaded or read: the config has neither a section api nor"
            " logs.zeromq_uri",
        )
    yield from _unprotected(config)
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


def _unprotected(config: Config) -> Iterator[SettingError]:
    """Yield warnings about ZeroMQ sockets that other hosts can reach without CURVE."""
    relay, logs = config.relay, config.logs
    if relay is not None and relay.curve is None and not is_loopback(config.zeromq_uri[0]):
        may = "write to every channel"
        if relay.allow_remote_exit:
            may += " and stop the daemon (allow_remote_exit)"
        yield SettingError(
            ("zeromq_uri",),
            f"{address_text(config.zeromq_uri)} is open to other hosts without relay.curve: anyone"
            f" who can connect can {may}",
        )
    address = None if logs is None or logs.curve is not None else logs.zeromq_uri
    if address is not None and not is_loopback(address[0]):
        yield SettingError(
            ("logs", "zeromq_uri"),
            f"{address_text(address)} is open to other hosts without logs.curve: tokens and entries"
            " travel unencrypted",
        )
