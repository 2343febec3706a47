"""``check-config -c FILE``: validates the config and prints the settings, without secrets."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence

from monitor.commands.terminal_text import terminal_text
from monitor.daemon.assembly import check
from monitor.daemon.config import LoadedConfig, load
from monitor.daemon.config_warnings import remarks
from monitor.daemon.shown_settings import settings_in_force
from monitor.errors import ConfigError, MonitorError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("-c", "--config", metavar="FILE", required=True, help="the config to check")


def run(args: argparse.Namespace) -> int:
    """Print the settings as YAML, or raise ConfigError like the start of the daemon.

    Warnings that the daemon would log go to stderr.
    """
    loaded = load(args.config, also=_errors_of_parts)
    left_out = asyncio.run(check(loaded))
    for remark in (*remarks(loaded), *left_out):
        print("recodex-monitor:", terminal_text(remark), file=sys.stderr)
    config = loaded.config
    if config.logs is not None:
        config = config.replace(logs=config.logs.with_environment(os.environ))
    print(settings_in_force(config), end="")
    return 0


def _errors_of_parts(loaded: LoadedConfig) -> Sequence[ConfigError]:
    """Return what the parts find out themselves, such as wrong jobs in a file."""
    try:
        asyncio.run(check(loaded))
    except ConfigError as error:
        return error, *error.others
    except MonitorError:
        pass  # such as a missing package; the config is to be mended first
    return ()
