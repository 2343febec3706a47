"""``rejected list|replay``: messages that could not be counted, through the API of a daemon."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from monitor.commands.api import Api, add_api_arguments
from monitor.commands.arguments import local_time, plain_text
from monitor.commands.screen import Column, print_table
from monitor.commands.terminal_text import terminal_text

__all__ = ["COLUMNS", "add_arguments", "run"]

_PAGE: Final = 500
_SHOWN: Final = 60
COLUMNS: Final = (
    Column("OFFSET", 1, right=True),
    Column("REASON", 2, least=14),
    Column("PARTITION", 4, right=True),
    Column("TOPIC", 5),
    Column("REJECTED", 3),
    Column("PAYLOAD", 6, least=14),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("action", choices=("list", "replay"), help="what to do")
    parser.add_argument("--topic", type=plain_text, help="only messages of this topic")
    parser.add_argument("--partition", type=int, help="only messages of this partition")
    parser.add_argument("--offset", type=int, help="only messages at this offset")
    parser.add_argument(
        "--reason", type=plain_text, help="only messages rejected for this, such as too-old"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, one object per line")
    add_api_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """List the messages, or try them again; return 1 if some are rejected again."""
    api = Api(args)
    chosen = {
        name: value
        for name in ("topic", "partition", "offset", "reason")
        if (value := getattr(args, name)) is not None
    }
    if args.action == "list":
        if args.json:
            for message in _all(api, chosen):
                print(json.dumps(message))
            return 0
        rows = [_row(message) for message in _all(api, chosen)]
        print_table(COLUMNS, rows, [""] * len(rows), empty="no rejected messages")
        return 0
    done = _replay(api, chosen)
    if args.json:
        print(json.dumps(done))
    else:
        print(
            f"{done['counted']} counted, {done['duplicates']} counted before,"
            f" {done['rejected']} rejected again"
        )
    return 1 if done["rejected"] else 0


def _replay(api: Api, chosen: dict[str, Any]) -> dict[str, int]:
    total: Counter[str] = Counter(counted=0, duplicates=0, rejected=0)
    cursor = None
    while True:
        done = api.request("POST", "/rejected/replay", {**chosen, "cursor": cursor})
        cursor = done.pop("cursor", None)
        total.update(done)
        if cursor is None:
            return dict(total)


def _all(api: Api, chosen: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cursor = None
    while True:
        page = api.request("GET", "/rejected", {**chosen, "limit": _PAGE, "cursor": cursor})
        yield from page["items"]
        cursor = page["cursor"]
        if cursor is None:
            return


def _row(message: dict[str, Any]) -> tuple[str, ...]:
    payload = message["payload"]
    cells = (
        message["offset"],
        message["reason"],
        message["partition"],
        message["topic"],
        local_time(message["rejected_at"]),
        payload if len(payload) <= _SHOWN else f"{payload[:_SHOWN]}...",
    )
    return tuple(terminal_text(str(cell)) for cell in cells)
