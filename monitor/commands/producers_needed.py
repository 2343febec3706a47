"""``producers-needed -c FILE``: how many producers the active sites need."""

from __future__ import annotations

import argparse
import asyncio

from monitor.config import LoadedConfig, load
from monitor.errors import SettingError
from monitor.probes.part import make_source
from monitor.probes.sharding import producers_needed

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("-c", "--config", metavar="FILE", required=True, help="the config")


def run(args: argparse.Namespace) -> int:
    """Print the number."""
    print(asyncio.run(_needed(load(args.config))))
    return 0


async def _needed(loaded: LoadedConfig) -> int:
    settings = loaded.config.probes
    if settings is None:
        raise loaded.error(SettingError(("probes",), "there is no such section"))
    try:
        jobs = await make_source(settings).load()
    except SettingError as error:
        raise loaded.error(error.under("probes")) from None
    return producers_needed(len(jobs.active()), settings.websites_per_container)
