"""``alerts list|test|acknowledge|silence``: the incidents of a running daemon, by its API."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from typing import Any, Final

from monitor.commands.api import Api, add_api_arguments
from monitor.commands.arguments import instant, local_time, plain_text
from monitor.commands.screen import Column, print_table
from monitor.commands.terminal_text import terminal_json, terminal_text
from monitor.commands.wording import span
from monitor.errors import MonitorError, UsageError

__all__ = ["COLUMNS", "add_arguments", "run"]

_ACTIONS: Final = ("list", "test", "acknowledge", "silence")
_STATES: Final = ("open", "acknowledged", "suppressed", "resolved")
COLUMNS: Final = (
    Column("ID", 1, least=8, ids=True),
    Column("STATE", 2),
    Column("SINCE", 4),
    Column("RULE", 6),
    Column("TITLE", 3, least=14),
    Column("REASON", 5, least=14),
)
# The daemon gives a receiver a minute.
_TEST_S: Final = 75.0
_ID_LENGTH: Final = 24
_MOST_OPEN: Final = 1000
_HOUR_S: Final = 3600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("action", choices=_ACTIONS, help="what to do")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="test: receivers; acknowledge: ids of incidents, or the first letters of them",
    )
    parser.add_argument(
        "--state", choices=_STATES, help="list: incidents in this state (default: all)"
    )
    parser.add_argument("--rule", type=plain_text, help="list, silence: of this rule")
    parser.add_argument("--job", type=int, metavar="ID", help="list, silence: of this job")
    parser.add_argument("--limit", type=int, default=100, help="list: this many (default: 100)")
    parser.add_argument(
        "--for",
        dest="for_",
        type=float,
        metavar="S",
        help="silence: for how many seconds (default: 3600)",
    )
    parser.add_argument("--until", metavar="TIME", help="silence: until this time, not --for")
    parser.add_argument(
        "--from",
        dest="since",
        metavar="TIME",
        help="silence: from this time on, as planned maintenance: s, ms or ISO 8601 (default: now)",
    )
    parser.add_argument("--tag", action="append", type=plain_text, help="silence: jobs with a tag")
    parser.add_argument(
        "--subject", type=plain_text, help="silence: these subjects, with * as wildcard"
    )
    parser.add_argument("--comment", type=plain_text, default="", help="silence: why")
    parser.add_argument("--end", metavar="ID", help="silence: end the silence of this id")
    parser.add_argument("--json", action="store_true", help="print JSON, one object per line")
    add_api_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the action; return 1 if a receiver does not accept its test."""
    if args.action in ("test", "acknowledge") and not args.names:
        what = "name of a receiver" if args.action == "test" else "id of an incident"
        raise UsageError(f"{args.action}: expected the {what}")
    if args.action in ("list", "silence") and args.names:
        raise UsageError(f"{args.action} expects no name, only options")
    if args.limit < 1:
        raise UsageError("--limit: expected at least 1")
    api = Api(args)
    if args.action == "list":
        return _list(api, args)
    if args.action == "test":
        return max(_test(api, name, as_json=args.json) for name in args.names)
    if args.action == "acknowledge":
        return _acknowledge(api, args)
    return _silence(api, args)


def _list(api: Api, args: argparse.Namespace) -> int:
    params = {"state": args.state, "rule": args.rule, "job": args.job, "limit": args.limit}
    found = api.request("GET", "/incident", params)["items"]
    if args.json:
        for incident in found:
            print(_json(incident))
        return 0
    rows = [_row(incident) for incident in found]
    styles = ["bold red" if row[1] == "open" else "" for row in rows]
    print_table(COLUMNS, rows, styles, empty="no incidents")
    return 0


def _row(incident: dict[str, Any]) -> tuple[str, ...]:
    state = "open"
    if incident["resolved_at"] is not None:
        state = "resolved"
    elif incident["acknowledged_at"] is not None:
        state = "acknowledged"
    elif incident["suppressed_by"] is not None:
        state = "suppressed"
    cells = (
        incident["id"],
        state,
        span(time.time() - incident["opened_at"]),
        incident["rule"],
        incident["title"],
        incident["suppressed_by"] or incident["reason"],
    )
    return tuple(terminal_text(str(cell)) for cell in cells)


def _test(api: Api, name: str, *, as_json: bool) -> int:
    found = api.request("POST", "/alert/test", {"receiver": name}, timeout_s=_TEST_S)
    if as_json:
        print(_json(found))
    else:
        for answer in found["answers"]:
            word = "accepted" if answer["accepted"] else "not accepted"
            print(f"{terminal_text(name)}: {word}: {terminal_text(answer['said'])}")
    return 0 if found["accepted"] else 1


def _acknowledge(api: Api, args: argparse.Namespace) -> int:
    failed = 0
    for name in args.names:
        if not name.isalnum():
            raise UsageError(f"{terminal_text(name[:50])} is not the id of an incident")
        try:
            found = api.request("POST", f"/incident/{_whole_id(api, name)}/acknowledge")
        except MonitorError as error:
            if error.exit_status != 1:
                raise
            print(f"recodex-monitor: {terminal_text(str(error))}", file=sys.stderr)
            failed = 1
            continue
        if args.json:
            print(_json(found))
        else:
            who = terminal_text(found["acknowledged_by"])
            print(
                f"incident {found['id']} ({terminal_text(found['title'])}) is acknowledged by {who}"
            )
    return failed


def _whole_id(api: Api, name: str) -> str:
    """Return the id of the open incident that begins like this, as narrow lists show it."""
    if len(name) >= _ID_LENGTH:
        return name
    params = {"state": "open", "limit": _MOST_OPEN}
    ids = [each["id"] for each in api.request("GET", "/incident", params)["items"]]
    found = [each for each in ids if each.startswith(name)]
    if len(found) > 1:
        raise MonitorError(
            f"{len(found)} open incidents begin with {name}: expected more of the id"
        )
    return found[0] if found else name


def _silence(api: Api, args: argparse.Namespace) -> int:
    if args.end is not None:
        if not args.end.isalnum():
            raise UsageError(f"{terminal_text(args.end[:50])} is not the id of a silence")
        api.request("DELETE", f"/silence/{args.end}")
        print(f"silence {args.end} has ended")
        return 0
    match: dict[str, Any] = {
        "tags": args.tag,
        "jobs": None if args.job is None else [args.job],
        "subject": args.subject,
        "rule": args.rule,
    }
    match = {key: value for key, value in match.items() if value is not None}
    if args.for_ is not None and args.until is not None:
        raise UsageError("--for and --until cannot be used together")
    if args.for_ is not None and not (args.for_ > 0 and math.isfinite(args.for_)):
        raise UsageError("--for: expected a number of seconds above 0")
    if not match and args.for_ is None and args.until is None:
        raise UsageError(
            "silence: expected --job, --tag, --subject or --rule;"
            " all subjects need --for or --until"
        )
    body: dict[str, Any] = {"match": match, "comment": args.comment}
    if args.until is None:
        body["for"] = _HOUR_S if args.for_ is None else args.for_
    else:
        body["until"] = instant("--until", args.until)
        if body["until"] <= time.time():
            raise UsageError(f"--until: {args.until} is in the past")
    if args.since is not None:
        body["from"] = instant("--from", args.since)
    found = api.request("POST", "/silence", body=body)
    if args.job is not None:
        _warn_of_unknown(api, args.job)
    if args.json:
        print(_json(found))
    elif args.since is None:
        print(f"silence {found['id']} lasts for {span(found['until'] - time.time())}")
    else:
        begins, ends = found["starts_at"], found["until"]
        print(
            f"silence {found['id']} begins at {local_time(begins)}"
            f" and lasts for {span(ends - begins)}"
        )
    return 0


def _warn_of_unknown(api: Api, job_id: int) -> None:
    """Say that a silence is for a job that is not there; another daemon may have it."""
    unknown = f"there is no job {job_id}"
    try:
        api.request("GET", f"/job/{job_id}")
    except MonitorError as error:
        if unknown in str(error):
            print(f"recodex-monitor: warning: {unknown} in this daemon", file=sys.stderr)


def _json(found: dict[str, Any]) -> str:
    return terminal_json(json.dumps(found))
