"""``token create NAME --role ROLE``: creates an API token.

The token is the last line of stdout and is stored nowhere; the tokens file gets its hash.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from monitor.commands.arguments import plain_text
from monitor.daemon.config import load
from monitor.errors import MonitorError, SettingError, UsageError
from monitor.tokens import Role, create_token
from monitor.web.settings import ApiSettings

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("verb", choices=["create"], help="what to do with tokens")
    parser.add_argument(
        "name",
        type=plain_text,
        help="the name of its owner; for the role sender, the sender of its entries",
    )
    parser.add_argument(
        "--role",
        required=True,
        choices=[role.value for role in Role],
        help="admin: everything; reader: see everything; sender: upload logs",
    )
    parser.add_argument("-c", "--config", metavar="FILE", help="the config with api.tokens_file")


def run(args: argparse.Namespace) -> int:
    """Add the hash of a new token to the file, and print the token."""
    loaded = load(args.config)
    file = (loaded.config.api or ApiSettings()).tokens_file
    if file is None:
        raise loaded.error(SettingError(("api", "tokens_file"), "no file for tokens is set"))
    directory = Path(file).parent
    if not directory.is_dir():
        raise MonitorError(
            f"{file}: there is no directory {directory}; create it, or use -c FILE with a config"
            " whose api.tokens_file is elsewhere"
        )
    try:
        token = create_token(file, args.name, Role(args.role))
    except SettingError as error:
        if error.path == ("name",):
            raise UsageError(f"name: {error.problem}") from None
        if loaded.file is None:
            raise MonitorError(
                f"{error.problem}; use -c FILE with a config whose api.tokens_file is elsewhere"
            ) from None
        raise loaded.error(error) from None
    print(token, flush=True)
    print(
        f"added to {file}; a running daemon applies it on reload (SIGHUP)."
        " Keep the token: it is not shown again.",
        file=sys.stderr,
    )
    return 0
