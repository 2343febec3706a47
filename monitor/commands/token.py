"""``token create|list|revoke``: API tokens.

A new token is the last line of stdout and is stored nowhere; the tokens file gets its hash.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from monitor.commands.arguments import local_time, plain_text
from monitor.commands.found_config import find_config
from monitor.commands.screen import Column, print_table
from monitor.commands.terminal_text import terminal_json, terminal_text
from monitor.daemon.config import LoadedConfig
from monitor.errors import MonitorError, SettingError, UsageError
from monitor.tokens import LastUse, Role, create_token, listed_tokens, revoke_token
from monitor.web.settings import ApiSettings

__all__ = ["add_arguments", "run"]

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_COLUMNS: Final = (
    Column("NAME", 1, least=14),
    Column("ROLE", 2),
    Column("EXPIRES", 3, least=10),
    Column("LAST USE", 4, least=10),
)
_APPLIED = "a running daemon applies it on reload (SIGHUP)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("verb", choices=["create", "list", "revoke"], help="what to do with tokens")
    parser.add_argument(
        "name",
        nargs="?",
        type=plain_text,
        help="the name of its owner; for the role sender, the sender of its entries",
    )
    parser.add_argument(
        "--role",
        choices=[role.value for role in Role],
        help="of a new token: admin: everything; reader: see everything; sender: upload logs",
    )
    parser.add_argument(
        "--expires",
        metavar="WHEN",
        help="when a new token ends: after a time such as 90d or 12h, or at a date (2027-06-30)",
    )
    parser.add_argument("--json", action="store_true", help="list: print JSON, one object per line")
    parser.add_argument("-c", "--config", metavar="FILE", help="the config with api.tokens_file")


def run(args: argparse.Namespace) -> int:
    """Do what is asked with the tokens in the file."""
    if args.verb == "list" and args.name is not None:
        raise UsageError("token list: takes no name")
    if args.verb != "list" and args.name is None:
        raise UsageError(f"token {args.verb}: a name is needed")
    if args.verb == "create" and args.role is None:
        raise UsageError("token create: --role is needed")
    if args.verb != "create" and (args.role or args.expires):
        raise UsageError(f"token {args.verb}: takes no --role and no --expires")
    if args.verb != "list" and args.json:
        raise UsageError(f"token {args.verb}: takes no --json")
    loaded = find_config(args.config, "api.tokens_file", must_read=True).loaded
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
        match args.verb:
            case "create":
                _create(args, file)
            case "list":
                _list(file, as_json=args.json)
            case _:
                _revoke(args, file)
    except SettingError as error:
        raise _shown(error, loaded) from None
    return 0


def _shown(error: SettingError, loaded: LoadedConfig) -> MonitorError:
    if error.path == ("name",):
        return UsageError(f"name: {error.problem}")
    if loaded.file is None:
        return MonitorError(
            f"{error.problem}; use -c FILE with a config whose api.tokens_file is elsewhere"
        )
    return loaded.error(error)


def _create(args: argparse.Namespace, file: str) -> None:
    """Add the hash of a new token to the file, and print the token."""
    expires = None if args.expires is None else _end(args.expires, time.time())
    token = create_token(file, args.name, Role(args.role), expires=expires)
    print(token, flush=True)
    until = "" if expires is None else f" It expires at {local_time(expires)}."
    print(
        f"added to {file}; {_APPLIED}. Keep the token: it is not shown again.{until}",
        file=sys.stderr,
    )


def _list(file: str, *, as_json: bool) -> None:
    """Print name, role, end and last use of each token."""
    uses, now = LastUse().load(), time.time()
    rows: list[tuple[str, ...]] = []
    for line in listed_tokens(file):
        end, used, role = line.end(), uses.of(line.digest), line.role.value
        if as_json:
            found = {"name": line.name, "role": role, "expires_at": end, "last_use": used}
            print(terminal_json(json.dumps(found)))
            continue
        ends = "never" if end is None else f"{local_time(end)}{' (expired)' if end <= now else ''}"
        last = "-" if used is None else local_time(used)
        rows.append((terminal_text(line.name), role, ends, last))
    if as_json:
        return
    if sys.stdout.isatty():
        print_table(_COLUMNS, rows, [""] * len(rows), empty="no tokens")
        return
    rows.insert(0, tuple(column.name for column in _COLUMNS))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        cells = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _revoke(args: argparse.Namespace, file: str) -> None:
    """Remove a token from the file."""
    left = revoke_token(file, args.name)
    warning = "" if left else "; it was the last one: then anyone on this machine may do everything"
    print(f"removed from {file}; {_APPLIED}{warning}", file=sys.stderr)


def _end(text: str, now: float) -> float:
    """Return the end that ``--expires`` names, in s since the epoch; raises UsageError."""
    try:
        if (span := re.fullmatch(r"(\d{1,9})([smhdw])", text)) is not None:
            end = now + int(span[1]) * _UNITS_S[span[2]]
        else:
            at = datetime.fromisoformat(text)
            end = (at if at.tzinfo is not None else at.astimezone()).timestamp()
        datetime.fromtimestamp(end, UTC)
    except (ValueError, OverflowError, OSError):
        problem = "expected a time such as 90d or 12h, or a date such as 2027-06-30"
        raise UsageError(f"--expires: {problem}, not {text[:40]!r}") from None
    if end <= now:
        raise UsageError(f"--expires: {text} is in the past")
    return end
