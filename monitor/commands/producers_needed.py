"""``producers-needed -c FILE``: prints how many producers the active sites need."""

from __future__ import annotations

import argparse
import asyncio

from monitor.commands.configured_jobs import load_configured_jobs
from monitor.daemon.config import LoadedConfig, load
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
    jobs = await load_configured_jobs(loaded)
    assert loaded.config.probes is not None
    return producers_needed(len(jobs.active()), loaded.config.probes.websites_per_container)
