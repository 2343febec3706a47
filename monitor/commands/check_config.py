"""``check-config -c FILE``: validates the config and prints the settings, without secrets."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from monitor.commands.terminal_text import terminal_text
from monitor.daemon.assembly import check
from monitor.daemon.config import load
from monitor.daemon.config_warnings import remarks
from monitor.daemon.shown_settings import settings_in_force

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("-c", "--config", metavar="FILE", required=True, help="the config to check")


def run(args: argparse.Namespace) -> int:
    """Print the settings as YAML, or raise ConfigError like the start of the daemon.

    Warnings that the daemon would log go to stderr.
    """
    loaded = load(args.config)
    asyncio.run(check(loaded))
    for remark in remarks(loaded):
        print("recodex-monitor:", terminal_text(remark), file=sys.stderr)
    config = loaded.config
    if config.logs is not None:
        config = config.replace(logs=config.logs.with_environment(os.environ))
    print(settings_in_force(config), end="")
    return 0
