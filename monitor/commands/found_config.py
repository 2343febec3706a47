"""Finds the config of the daemon that a command talks to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from monitor.daemon.config import LoadedConfig, load
from monitor.errors import ConfigError

__all__ = ["INSTALLED_CONFIG", "FoundConfig", "find_config"]

# The config of the packages.
INSTALLED_CONFIG = "/etc/recodex/monitor/config.yml"


class FoundConfig(NamedTuple):
    """A config, and where it was found, for an error."""

    loaded: LoadedConfig
    source: str


def find_config(file: str | None, *keys: str, must_read: bool = False) -> FoundConfig:
    """Return the config of -c FILE, else the installed one, else the defaults.

    The defaults are for a host without an installed config and, unless a command ``must_read`` it,
    for a user who may not read it. Of the installed one only what concerns ``keys``, which the
    command uses, must be valid: others may name files and variables that only the service has.
    Raises ConfigError.
    """
    if file is not None:
        return FoundConfig(load(file), file)
    if os.access(INSTALLED_CONFIG, os.R_OK):
        return FoundConfig(load(INSTALLED_CONFIG, keys=keys), INSTALLED_CONFIG)
    there = Path(INSTALLED_CONFIG).exists()
    if there and must_read:
        raise ConfigError("this user cannot read the file; try as root", file=INSTALLED_CONFIG)
    problem = "cannot be read by this user" if there else "is not there"
    return FoundConfig(load(None), f"the defaults, because {INSTALLED_CONFIG} {problem}")
