"""``job list|show|start|stop``: the jobs of a running daemon, through its API."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from monitor.commands.api import Api, add_api_arguments
from monitor.commands.terminal_text import terminal_json, terminal_text
from monitor.errors import MonitorError, UnavailableError, UsageError

__all__ = ["add_arguments", "run"]

_ACTIONS: Final = ("list", "show", "start", "stop")
_STATES: Final = ("up", "down", "unknown", "stopped", "inactive")
_STYLES: Final = {"up": "green", "down": "bold red", "stopped": "dim", "inactive": "dim"}
_PAGE: Final = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("action", choices=_ACTIONS, help="what to do")
    parser.add_argument("id", nargs="*", type=int, help="of the job or jobs, but for list")
    parser.add_argument("--state", choices=_STATES, help="list only these")
    parser.add_argument("--json", action="store_true", help="print jobs as JSON, one a line")
    add_api_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Do it for each job; 1 where one was refused (an unknown id, a job that is stopped already).

    Raises UnavailableError where the daemon is away.
    """
    if args.action == "list":
        if args.id:
            raise UsageError("list takes no id; `job show ID` shows one")
        found = [job for job in _all(Api(args)) if args.state in (None, job["state"])]
        _print_list(found, as_json=args.json)
        return 0
    if not args.id:
        raise UsageError(f"{args.action}: which job? give its id")
    if any(job_id < 1 for job_id in args.id):
        raise UsageError("an id is a number above 0")
    api = Api(args)
    said: set[str] = set()
    for job_id in args.id:
        try:
            job = _asked(api, args.action, job_id)
        except UnavailableError:
            raise
        except MonitorError as error:
            # The others are tried all the same; what is wrong with all of them is said once.
            if str(error) not in said:
                sys.stdout.flush()
                print(f"recodex-monitor: {terminal_text(str(error))}", file=sys.stderr)
            said.add(str(error))
            continue
        if args.action == "show":
            _print_job(job, as_json=args.json)
        elif args.json:
            print(_json(job))
        else:
            word = "started" if args.action == "start" else "stopped"
            print(f"job {job_id} ({terminal_text(job['name'] or job['url'])}) is {word}")
    return 1 if said else 0


def _asked(api: Api, action: str, job_id: int) -> Any:
    if action == "show":
        return api.request("GET", f"/job/{job_id}")
    return api.request("POST", f"/job/{job_id}/{action}")


def _all(api: Api) -> Iterator[dict[str, Any]]:
    cursor = None
    while True:
        page = api.request("GET", "/job", {"limit": _PAGE, "cursor": cursor})
        yield from page["items"]
        cursor = page["cursor"]
        if cursor is None:
            return


def _print_list(jobs: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        for job in jobs:
            print(_json(job))
        return
    columns = ("ID", "STATE", "FOR", "STATUS", "RESPONSE", "CHECKED", "NAME", "URL")
    rows = [_row(job) for job in jobs]
    if not sys.stdout.isatty():
        # For the eye and for cut, awk and the like: tabs, and every row whole.
        for row in (columns, *rows):
            print("\t".join(row))
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in columns:
        table.add_column(
            name, justify="right" if name in ("ID", "RESPONSE") else "left", no_wrap=name != "URL"
        )
    for row in rows:
        style = _STYLES.get(row[1], "")
        table.add_row(
            *(Text(text, style=style if place == 1 else "") for place, text in enumerate(row))
        )
    Console(highlight=False).print(table)


def _row(job: dict[str, Any]) -> tuple[str, ...]:
    last = job["last"] or {}
    cells = (
        job["id"],
        job["state"],
        _ago(job["since"]),
        last.get("status") or "-",
        _milliseconds(last.get("response_time")),
        _ago(last.get("checked_at")),
        job["name"],
        job["url"],
    )
    return tuple(terminal_text(str(cell)) for cell in cells)


def _json(job: dict[str, Any]) -> str:
    return terminal_json(json.dumps(job))


def _print_job(job: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(_json(job))
        return
    last = job["last"] or {}
    lines = {
        "job": f"{job['id']} {job['name']}",
        "url": job["url"] if job["kind"] != "http" else f"{job['method']} {job['url']}",
        "state": f"{job['state']}, {_since(job)}",
        "interval": f"{job['interval']:g} s, timeout {job['timeout']:g} s",
        "next run": "-"
        if job["next_run"] is None
        else f"in {_span(job['next_run'] - time.time())}",
        "last run": f"{_ago(last.get('checked_at'))} ago" if last else "none yet",
    }
    if last:
        lines["status"] = str(last["status"] or "-")
        lines["response"] = _milliseconds(last["response_time"])
        lines["phases"] = ", ".join(
            f"{name} {_milliseconds(value)}" for name, value in last["phases"].items() if value
        )
        if last["error"]:
            lines["error"] = last["error"]
    for name, text in lines.items():
        print(f"{name + ':':10} {terminal_text(text)}")


def _since(job: dict[str, Any]) -> str:
    return "for how long is not known" if job["since"] is None else f"for {_ago(job['since'])}"


def _ago(instant: float | None) -> str:
    return "-" if instant is None else _span(time.time() - instant)


def _span(seconds: float) -> str:
    seconds = max(0, round(seconds))
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds // unit} {name}"
    return f"{seconds} s"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f} ms"
