"""``status``: the daemon on one screen: its parts, the sites that are down, the open incidents."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any, Final

from rich.text import Text

from monitor.commands.api import Api, add_api_arguments
from monitor.commands.screen import print_folded
from monitor.commands.terminal_text import terminal_json, terminal_text
from monitor.commands.wording import span
from monitor.errors import MonitorError, UnavailableError
from monitor.part import counted

__all__ = ["add_arguments", "run"]

_STYLES: Final = {"ok": "green", "degraded": "bold red", "down": "bold red"}
# More do not fit on one screen.
_MOST_ROWS: Final = 10
_PAGE: Final = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")
    add_api_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Show the state; raises UnavailableError if the daemon is unavailable."""
    api = Api(args)
    status = api.request("GET", "/")
    parts = status["parts"]
    jobs = list(_jobs(api)) if "probes" in parts or "aggregation" in parts else None
    incidents = _incidents(api) if "alerts" in parts else None
    if args.json:
        down = None if jobs is None else [job for job in jobs if job["state"] == "down"]
        print(terminal_json(json.dumps({**status, "sites_down": down, "incidents": incidents})))
        return 0
    print_folded(_lines(api, status, jobs, incidents))
    return 0


def _jobs(api: Api) -> Iterator[dict[str, Any]]:
    cursor = None
    while True:
        try:
            page = api.request("GET", "/job", {"limit": _PAGE, "cursor": cursor})
        except UnavailableError:
            raise
        except MonitorError:
            # The sites of a daemon that only counts are those of its database, if it has any.
            return
        yield from page["items"]
        cursor = page["cursor"]
        if cursor is None:
            return


def _incidents(api: Api) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.request("GET", "/incident", {"state": "open"})["items"]
    return found


def _lines(
    api: Api,
    status: dict[str, Any],
    jobs: list[dict[str, Any]] | None,
    incidents: list[dict[str, Any]] | None,
) -> Iterator[Text]:
    up = span(time.time() - status["started_at"])
    yield Text(f"{status['name']} {status['version']} at {api.shown}, started {up} ago")
    width = max((len(name) for name in status["parts"]), default=0)
    for name, part in status["parts"].items():
        health = Text(part["health"], style=_STYLES.get(part["health"], ""))
        summary = terminal_text(part["summary"])
        yield Text(f"  {name:<{width}}  ") + health + Text(f"  {summary}" if summary else "")
    if jobs is not None:
        yield from _sites(jobs)
    if incidents is not None:
        yield Text(f"{counted(len(incidents), 'open incident')}{':' if incidents else ''}")
        for incident in incidents[:_MOST_ROWS]:
            since = span(time.time() - incident["opened_at"])
            yield Text(f"  {terminal_text(incident['title'])}, for {since}")
        yield from _more(len(incidents))


def _sites(jobs: list[dict[str, Any]]) -> Iterator[Text]:
    down = [job for job in jobs if job["state"] == "down"]
    if not down:
        unknown = sum(job["state"] == "unknown" for job in jobs)
        never = f", {unknown} not checked yet" if unknown else ""
        few = sum(job["state"].startswith("unknown: down") for job in jobs)
        unsure = f", {few} down in fewer locations than the quorum" if few else ""
        yield Text(f"{counted(len(jobs), 'site')}: none is down{never}{unsure}")
        return
    yield Text(
        f"{counted(len(jobs), 'site')}: {len(down)} {'is' if len(down) == 1 else 'are'} down:"
    )
    for job in down[:_MOST_ROWS]:
        since = "" if job["since"] is None else f", for {span(time.time() - job['since'])}"
        error = (job["last"] or {}).get("error")
        name = terminal_text(job["name"] or job["url"])
        row = Text(f"  {job['id']} {name}{since}")
        yield row + Text(f": {terminal_text(error)}" if error else "")
    yield from _more(len(down))


def _more(number: int) -> Iterator[Text]:
    if number > _MOST_ROWS:
        yield Text(f"  and {number - _MOST_ROWS} more")
