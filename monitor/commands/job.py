"""``job list|show|start|stop|check|add|change|remove``: a daemon's jobs, through its API."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

from rich.text import Text

from monitor.commands.api import Api, add_api_arguments
from monitor.commands.arguments import instant, local_time
from monitor.commands.job_import import import_jobs
from monitor.commands.screen import Column, print_folded, print_table
from monitor.commands.terminal_text import terminal_json, terminal_text
from monitor.commands.wording import span
from monitor.errors import MonitorError, SettingError, UnavailableError, UsageError
from monitor.files.json_keys import each_key_once, require_each_key_once
from monitor.probes.checks import DEFAULT_KIND, kind_of

__all__ = ["COLUMNS", "add_arguments", "run"]

_ACTIONS: Final = ("list", "show", "start", "stop", "check", "add", "change", "remove", "import")
_STATES: Final = ("up", "down", "unknown", "stopped", "inactive")
_STYLES: Final = {"up": "green", "down": "bold red", "stopped": "dim", "inactive": "dim"}
_PAGE: Final = 1000
COLUMNS: Final = (
    Column("ID", 1, right=True),
    Column("STATE", 2),
    Column("FOR", 4),
    Column("STATUS", 8),
    Column("RESPONSE", 6, right=True),
    Column("CHECKED", 7),
    Column("NAME", 3, least=14),
    Column("URL", 5, least=14),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("action", choices=_ACTIONS, help="what to do")
    parser.add_argument(
        "id",
        nargs="*",
        metavar="ID|FILE",
        help="ids of jobs; for add a URL, for change an id, each followed by KEY=VALUE (a heartbeat"
        " has no URL: kind=heartbeat interval=3600); for import"
        " a file of Prometheus, Gatus or Uptime Kuma, whose jobs are printed as a jobs file",
    )
    parser.add_argument("--state", choices=_STATES, help="list only jobs in this state")
    parser.add_argument(
        "--until", metavar="TIME", help="stop: start again at this time: s, ms or ISO 8601"
    )
    parser.add_argument("--json", action="store_true", help="print jobs as JSON, one per line")
    add_api_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the action for each job; return 1 if one fails (an unknown id, a stopped job).

    Raises UnavailableError if the daemon is unavailable.
    """
    until = _until(args)
    if args.action == "list":
        if args.id:
            raise UsageError("list expects no id; use `job show ID`")
        # A state may be followed by its reason.
        found = [
            job for job in _all(Api(args)) if args.state in (None, job["state"].partition(":")[0])
        ]
        _print_list(found, as_json=args.json)
        return 0
    if args.action == "import":
        if len(args.id) != 1:
            raise UsageError("import: expected one file")
        return import_jobs(args.id[0])
    if args.action in ("add", "change"):
        return _save(args)
    if not args.id:
        raise UsageError(f"{args.action}: expected the id of a job")
    ids = [_id(text) for text in args.id]
    api = Api(args)
    said: set[str] = set()
    for job_id in ids:
        try:
            job = _asked(api, args.action, job_id, until)
        except UnavailableError:
            raise
        except MonitorError as error:
            # Try the others too; print an error that all have only once.
            if str(error) not in said:
                sys.stdout.flush()
                print(f"recodex-monitor: {terminal_text(str(error))}", file=sys.stderr)
            said.add(str(error))
            continue
        if args.action == "check":
            _print_check(job, as_json=args.json)
        elif args.action == "remove":
            print(f"job {job_id} is removed")
        elif args.action == "show":
            _print_job(job, as_json=args.json)
        elif args.json:
            print(_json(job))
        else:
            word = "started" if args.action == "start" else "stopped"
            end = "" if until is None else f" until {local_time(until)}"
            print(f"job {job_id} ({terminal_text(job['name'] or job['url'])}) is {word}{end}")
    return 1 if said else 0


def _until(args: argparse.Namespace) -> float | None:
    if args.until is None:
        return None
    if args.action != "stop":
        raise UsageError("--until is only for stop")
    until = instant("--until", args.until)
    if until <= time.time():
        raise UsageError(f"--until: {args.until} is in the past")
    return until


def _id(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise UsageError("an id must be a number above 0")
    return int(text)


def _save(args: argparse.Namespace) -> int:
    """Add a job, or change one."""
    adds = args.action == "add"
    first, given = "", args.id
    if given and "=" not in given[0].partition("://")[0]:
        first, *given = given
    # A heartbeat has no URL.
    if not first and not (adds and "kind=heartbeat" in given):
        raise UsageError(f"{args.action}: expected {'a URL' if adds else 'an id'}")
    if not given and not adds:
        raise UsageError(f"{args.action}: expected KEY=VALUE")
    keys: dict[str, Any] = {}
    for each in given:
        key, equals, value = each.partition("=")
        if not equals:
            raise UsageError(f"{args.action}: expected KEY=VALUE, not {each!r}")
        if key in keys:
            raise UsageError(f"{args.action}: {key} is given twice")
        keys[key] = _value(key, value)
    api = Api(args)
    if adds:
        kind = {} if "kind" in keys else {"kind": kind_of(first) or DEFAULT_KIND}
        job = api.request("POST", "/job", body={"url": first, **kind, **keys})
    else:
        job = api.request("PATCH", f"/job/{_id(first)}", body=keys)
    if args.json:
        print(_json(job))
    else:
        word = "added" if adds else "changed"
        print(f"job {job['id']} ({terminal_text(job['name'] or job['url'])}) is {word}")
        if job.get("key"):
            print(f"it reports to {api.shown}/heartbeat/{job['key']} (shown only this once)")
    return 0


def _value(key: str, text: str) -> Any:
    """Return a value: JSON if it is that, else the text itself."""
    try:
        found = json.loads(text, object_pairs_hook=each_key_once)
    except (ValueError, RecursionError):
        return text
    try:
        require_each_key_once(found, key)
    except SettingError as error:
        raise UsageError(str(error)) from None
    return found


def _print_check(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(_json(result))
        return
    said = "up" if result["up"] else f"down, {result['error']}"
    if result["response_time"] is not None:
        said += f", {_milliseconds(result['response_time'])}"
    print(f"job {result['job_id']} is {terminal_text(said)}")


def _asked(api: Api, action: str, job_id: int, until: float | None) -> Any:
    if action == "show":
        return api.request("GET", f"/job/{job_id}")
    if action == "remove":
        return api.request("DELETE", f"/job/{job_id}")
    return api.request("POST", f"/job/{job_id}/{action}", {"until": until})


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
    rows = [_row(job) for job in jobs]
    styles = [_STYLES.get(row[1], "") for row in rows]
    print_table(COLUMNS, rows, styles, empty="no jobs")


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
        "state": f"{job['state']}, {_since(job)}{_stopped_until(job)}",
        "interval": f"{job['interval']:g} s, timeout {job['timeout']:g} s",
        "next run": "-" if job["next_run"] is None else f"in {span(job['next_run'] - time.time())}",
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
    texts = (Text(f"{name + ':':10} {terminal_text(text)}") for name, text in lines.items())
    print_folded(texts, indent=11)


def _since(job: dict[str, Any]) -> str:
    return "since an unknown time" if job["since"] is None else f"for {_ago(job['since'])}"


def _stopped_until(job: dict[str, Any]) -> str:
    until = job["stopped_until"]
    return "" if until is None else f", until {local_time(until)}"


def _ago(at: float | None) -> str:
    return "-" if at is None else span(time.time() - at)


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f} ms"
