"""``start-consumer FILE``: the aggregation alone, as many of them as the topic has partitions.

Several on one host share a config, so the API in it is off, unless ``--api`` is given.
"""

from __future__ import annotations

import argparse

from monitor.aggregation.settings import AggregationSettings
from monitor.config import Config
from monitor.daemon import run_daemon

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("config", metavar="FILE", help="the config")
    parser.add_argument(
        "--api", action="store_true", help="serve the config's API, too, for health and metrics"
    )


def run(args: argparse.Namespace) -> int:
    """Run until told to stop; consumers of one config share the topic by its group."""
    off = _OTHER_PARTS if args.api else (*_OTHER_PARTS, "api")

    def narrow(config: Config) -> Config:
        narrowed: Config = config.replace(
            **{name: None for name in off if name in config.__struct_fields__},
            aggregation=config.aggregation or AggregationSettings(),
        )
        return narrowed

    return run_daemon(args.config, narrow=narrow)


_OTHER_PARTS = ("relay", "probes", "cluster", "logs")
