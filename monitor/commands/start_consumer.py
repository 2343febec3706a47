"""``start-consumer FILE``: runs only the aggregation, in up to one process per partition.

If the config has no section ``aggregation``, defaults apply, and the log shows them. Several
consumers on one host share a config, so the API in it is off without ``--api``.
"""

from __future__ import annotations

import argparse

from monitor.aggregation.settings import AggregationSettings
from monitor.daemon.config import Config
from monitor.daemon.lifecycle import run_daemon
from monitor.settings import hide_url_secrets

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("config", metavar="FILE", help="the config")
    parser.add_argument(
        "--api",
        action="store_true",
        help="also serve the API, for health and metrics",
    )


def run(args: argparse.Namespace) -> int:
    """Run until stopped by a signal; consumers of one config share a group."""
    off = _OTHER_PARTS if args.api else (*_OTHER_PARTS, "api")

    def narrow(config: Config) -> Config:
        narrowed: Config = config.replace(
            **{name: None for name in off if name in config.__struct_fields__},
            aggregation=config.aggregation or AggregationSettings(),
        )
        return narrowed

    def remark(config: Config) -> str | None:
        if config.aggregation is not None:
            return None
        defaults = AggregationSettings()
        return (
            f"{args.config} has no section aggregation; using the defaults: topic"
            f" {defaults.topic}, group {defaults.group}; reading results from {_source(config)},"
            f" writing to {_target(config)}"
        )

    return run_daemon(args.config, narrow=narrow, remark=remark)


def _source(config: Config) -> str:
    if config.kafka is not None:
        return f"Kafka at {', '.join(config.kafka.bootstrap_servers)}"
    return f"the spool {config.bus.path()}"


def _target(config: Config) -> str:
    database = config.database
    return str(database.sqlite_file()) if database.url is None else hide_url_secrets(database.url)


_OTHER_PARTS = ("relay", "probes", "cluster", "logs")
