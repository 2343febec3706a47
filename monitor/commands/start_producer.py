"""``start-producer FILE [ID]``: runs only the probes, for one range of sites.

Without an ID it uses the ordinal in $POD_NAME plus one, for the pods of a StatefulSet. Several
producers on one host share a config, so the API in it is off without ``--api``.
"""

from __future__ import annotations

import argparse
import os

from monitor.daemon.config import Config, load
from monitor.errors import SettingError, UsageError
from monitor.probes.sharding import ordinal_id

__all__ = ["add_arguments", "run"]

# Sections that stay on; all other parts are off.
_KEPT = frozenset({"bus", "kafka", "database", "logger", "probes"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("file", metavar="FILE", help="the config")
    parser.add_argument(
        "id",
        metavar="ID",
        nargs="?",
        help="the range of sites, from 1 (default: the ordinal in $POD_NAME plus one)",
    )
    parser.add_argument(
        "--api",
        action="store_true",
        help="also serve the API, for health and metrics",
    )


def run(args: argparse.Namespace) -> int:
    """Run until stopped by a signal."""
    producer = _producer(args.id)
    loaded = load(args.file)
    if loaded.config.probes is None:
        raise loaded.error(SettingError(("probes",), "the section is missing"))
    from monitor.daemon.lifecycle import run_daemon

    def narrow(config: Config) -> Config:
        kept = _KEPT | {"api"} if args.api else _KEPT
        off = {name: None for name, _ in config.sections() if name not in kept}
        probes = None if config.probes is None else config.probes.replace(id=producer)
        narrowed: Config = config.replace(**off, probes=probes)
        return narrowed

    return run_daemon(args.file, narrow=narrow)


def _producer(text: str | None) -> int:
    if text is None:
        pod = os.environ.get("POD_NAME", "")
        found = ordinal_id(pod)
        if found is None:
            raise UsageError(
                "expected an ID, or POD_NAME with a name that ends with an ordinal"
                + (f", not {pod!r}" if pod else "")
            )
        return found
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise UsageError(f"{text!r} is not an ID: ranges are numbered from 1")
    return int(text)
