"""``start-consumer FILE``: the aggregation alone, as many of them as the topic has partitions."""

from __future__ import annotations

import argparse

from monitor.aggregation.settings import AggregationSettings
from monitor.config import Config
from monitor.daemon import run_daemon

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("config", metavar="FILE", help="the config")


def run(args: argparse.Namespace) -> int:
    """Run until told to stop; consumers of one config share the topic by its group."""
    return run_daemon(args.config, narrow=_narrow)


def _narrow(config: Config) -> Config:
    narrowed: Config = config.replace(
        **{name: None for name in _OTHER_PARTS if name in config.__struct_fields__},
        aggregation=config.aggregation or AggregationSettings(),
    )
    return narrowed


_OTHER_PARTS = ("relay", "probes", "cluster", "logs", "api")
