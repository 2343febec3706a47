"""``logs``: shows log entries, and with ``--follow`` new ones.

Oldest first; coloured by level in a terminal. ``--follow`` shows the last entries, then new ones as
they arrive, and reconnects if the daemon is unavailable.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import ssl
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.text import Text
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidProxy,
    InvalidStatus,
    ProxyError,
)
from websockets.sync.client import ClientConnection, connect

from monitor.backoff import Backoff
from monitor.commands.api import TLS_FAILED, Api, add_api_arguments
from monitor.commands.arguments import instant, log_text, seconds
from monitor.commands.screen import Screen
from monitor.commands.terminal_text import terminal_json, terminal_text
from monitor.errors import MonitorError, UnavailableError, UsageError
from monitor.logs.levels import LEVELS, level_name
from monitor.part import counted
from monitor.transport.environment_proxy import environment_proxy, through

__all__ = ["add_arguments", "run"]

_PAGE: Final = 1000
_LAST_LINES: Final = 10
_AROUND_LINES: Final = 20
_OPEN_S: Final = 10.0
_ANSWER_S: Final = 30.0
_RETRY_S: Final = (0.5, 15.0)
# Entries shown recently, to recognize repeats around a (re)connect.
_REMEMBERED: Final = 10_000
_OVERLAP_S: Final = 2.0
_STYLES: Final = {
    "debug": "dim",
    "info": "",
    "warning": "yellow",
    "error": "red",
    "critical": "bold white on red",
}

Line = tuple[str, float, str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--timewindow", type=float, metavar="S", help="the last S seconds (default: all kept)"
    )
    parser.add_argument("--sender", type=log_text, metavar="NAME", help="only of this sender")
    parser.add_argument("--level", metavar="LEVEL", help=f"only this level: {', '.join(LEVELS)}")
    parser.add_argument("--min-level", metavar="LEVEL", help="this level and more severe ones")
    parser.add_argument(
        "--contains", type=log_text, metavar="TEXT", help="only with this text, in any case"
    )
    parser.add_argument(
        "--not",
        dest="excludes",
        type=log_text,
        action="append",
        metavar="TEXT",
        help="only without this text, in any case; may be repeated",
    )
    parser.add_argument(
        "--regexp", type=log_text, metavar="RE", help="only where this regular expression is found"
    )
    parser.add_argument(
        "--from", dest="since", metavar="TIME", help="since this time: s, ms or ISO 8601"
    )
    parser.add_argument("--until", metavar="TIME", help="before this time")
    parser.add_argument(
        "--around", metavar="TIME", help="those before and after this time; 20, or --limit"
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="the newest N at most (default: 1000)"
    )
    parser.add_argument("--follow", action="store_true", help="also show new ones as they arrive")
    parser.add_argument(
        "--wait",
        type=seconds,
        metavar="S",
        help="with --follow: give up after S s without a daemon",
    )
    parser.add_argument("--json", action="store_true", help="print entries as JSON, one per line")
    add_api_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Show the matching entries."""
    window = args.timewindow
    if window is not None and not (math.isfinite(window) and window > 0):
        raise UsageError("--timewindow: expected a number of seconds above 0")
    if args.limit is not None and args.limit < 1:
        raise UsageError("--limit: expected at least 1")
    filter_ = {
        key: _level(key, value) if key.endswith("level") else value
        for key in ("sender", "level", "min_level", "contains", "regexp")
        if (value := getattr(args, key)) is not None
    }
    if args.excludes:
        filter_["not"] = args.excludes
    times = {
        key: instant(f"--{key}", value)
        for key, value in (("from", args.since), ("until", args.until), ("around", args.around))
        if value is not None
    }
    if times and args.follow:
        raise UsageError("--follow conflicts with --from, --until and --around; use --timewindow")
    if args.around is not None and args.until is not None:
        raise UsageError("--around and --until cannot be used together")
    api, view = Api(args), _View(as_json=args.json)
    if not args.follow:
        asked_for = {**filter_, **times}
        limit = args.limit or (_PAGE if args.around is None else _AROUND_LINES)
        for entry in reversed(list(_pages(api, asked_for, window, limit))):
            view.show(entry)
        return 0
    asked = args.limit or (_PAGE if window is not None else _LAST_LINES)
    _Tail(api, view, filter_, window=window, limit=min(asked, 10_000)).run(args.wait)
    return 0


def _level(key: str, text: str) -> str:
    named = text.lower()
    # Numbers of levels have fewer digits, and int() rejects thousands of them.
    found = level_name(int(text) if text.isascii() and text.isdigit() and len(text) < 9 else named)
    if found is None:
        option = f"--{key.replace('_', '-')}"
        raise UsageError(f"{option}: expected one of {', '.join(LEVELS)}, not {text[:40]!r}")
    return found


def _pages(
    api: Api, filter_: dict[str, Any], window: float | None, limit: int
) -> Iterator[dict[str, Any]]:
    """Yield entries, newest first."""
    cursor = None
    left = limit
    while left > 0:
        params = {**filter_, "limit": min(left, _PAGE), "timewindow": window, "cursor": cursor}
        page = api.request("GET", "/log", params)
        yield from page["logs"]
        left -= len(page["logs"])
        cursor = page["cursor"]
        # Around a time there is one page, and its cursor leads to older entries alone.
        if cursor is None or "around" in filter_:
            return


class _AwayError(Exception):
    """The daemon is unavailable; a retry may help. Never leaves this module."""


class _Tail:
    """Shows the last entries and then new ones, across lost connections."""

    def __init__(
        self, api: Api, view: _View, filter_: dict[str, Any], *, window: float | None, limit: int
    ) -> None:
        self._api = api
        self._view = view
        self._filter = filter_
        self._window = window
        self._limit = limit
        self._shown: Counter[Line] = Counter()
        self._order: deque[Line] = deque()
        self._lost_at: float | None = None
        self._overlap_until = 0.0

    def run(self, wait_s: float | None) -> None:
        """Run until interrupted; raises MonitorError if a retry is pointless."""
        backoff, away_since = Backoff(*_RETRY_S), time.monotonic()
        said: str | None = None
        while True:
            try:
                with self._connected() as connection:
                    self._begin(connection)
                    if said is not None:
                        self._view.notice(f"{self._api.shown}: following again")
                        said = None
                    backoff.reset()
                    away_since = time.monotonic()
                    self._go_on(connection)
            except _AwayError as away:
                if wait_s is not None and time.monotonic() - away_since >= wait_s:
                    raise UnavailableError(self._api.shown, f"{away}; gave up waiting") from None
                # Once, not for each try.
                if str(away) != said:
                    said = str(away)
                    self._view.notice(f"{self._api.shown}: {said}; trying again")
            if self._lost_at is None:
                self._lost_at = time.time()
            time.sleep(backoff.next_delay())

    @contextlib.contextmanager
    def _connected(self) -> Iterator[ClientConnection]:
        url = self._api.websocket_url
        proxy = environment_proxy(url, secret=bool(self._api.headers))
        server = self._api.shown + through(proxy)
        try:
            manager = connect(
                url,
                proxy=proxy,
                additional_headers=self._api.headers,
                open_timeout=_OPEN_S,
                compression=None,
                ssl=self._api.tls,
                max_size=None,  # pages may be large
            )
        except InvalidStatus as error:
            status = error.response.status_code
            if status in (429, 500, 502, 503, 504):
                raise _AwayError(f"answered {status}") from None
            problem = f"refused with status {status}" if status != 401 else self._api.unauthorized
            raise MonitorError(f"{server}: {problem}") from None
        except TimeoutError:
            raise _AwayError(f"no response in time{through(proxy)}") from None
        except (ProxyError, InvalidProxy) as error:
            raise MonitorError(f"{server}: {error}") from None
        except InvalidHandshake as error:
            raise MonitorError(f"{server}: not a WebSocket server: {error}") from None
        except ssl.SSLError:
            raise _AwayError(TLS_FAILED) from None
        except (OSError, EOFError) as error:
            problem = getattr(error, "strerror", None) or "no response"
            raise _AwayError(problem + through(proxy)) from None
        with manager as connection:
            try:
                yield connection
            except ConnectionClosed as closed:
                code = closed.rcvd.code if closed.rcvd is not None else 1006
                raise _AwayError(f"connection lost ({code})") from None

    def _begin(self, connection: ClientConnection) -> None:
        """Start the live tail, then show earlier entries, so that none is missed in between."""
        limit, window = self._limit, self._window
        if self._lost_at is not None:
            # After a reconnect: the entries since then and a little more; repeats are recognized.
            limit, window = 10_000, time.time() - self._lost_at + 5
            self._lost_at = None
        connection.send(json.dumps({"action": "followLogs", "id": "follow", **self._filter}))
        query: dict[str, Any] = {"action": "getLogs", "id": "get", **self._filter}
        if window is not None:
            query["timewindow"] = window
        found: list[dict[str, Any]] = []
        live: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            connection.send(json.dumps({**query, "limit": limit - len(found), "cursor": cursor}))
            page = self._page(connection, live)
            found += page["logs"]
            cursor = page["cursor"]
            if cursor is None or len(found) >= limit:
                break
        self._overlap_until = time.monotonic() + _OVERLAP_S
        self._show(list(reversed(found)))
        for each in live:
            self._live(each)

    def _page(self, connection: ClientConnection, live: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the response to getLogs; live messages before it are added to ``live``."""
        while True:
            try:
                message = json.loads(connection.recv(timeout=_ANSWER_S))
            except TimeoutError:
                raise _AwayError("no response in time") from None
            self._refuse_error(message)
            if message["action"] == "log":
                live.append(message)
            elif message.get("id") == "get":
                return dict(message)

    def _refuse_error(self, message: dict[str, Any]) -> None:
        if message.get("status") == "error":
            error = message["error"]
            if error["code"] in ("unavailable", "rate-limited"):
                raise _AwayError(error["message"])
            raise MonitorError(f"{self._api.shown}: {error['message']}")

    def _go_on(self, connection: ClientConnection) -> None:
        while True:
            message = json.loads(connection.recv())
            self._refuse_error(message)
            if message["action"] == "log":
                self._live(message)

    def _live(self, message: dict[str, Any]) -> None:
        if message["dropped"]:
            self._view.notice(
                f"missed {counted(message['dropped'], 'entry', 'entries')}: this client is too slow"
            )
        self._show(message["logs"])

    def _show(self, entries: Sequence[dict[str, Any]]) -> None:
        # Around a (re)connect, an entry may come from the page and from the live tail. Equal
        # entries from the same source are different entries.
        overlap = time.monotonic() < self._overlap_until
        before = Counter(self._shown) if overlap else Counter()
        for entry in entries:
            line = (entry["level"], entry["time"], entry["sender"], entry["message"])
            if before[line] > 0:
                before[line] -= 1
                continue
            self._view.show(entry)
            self._remember(line)

    def _remember(self, line: Line) -> None:
        self._shown[line] += 1
        self._order.append(line)
        if len(self._order) > _REMEMBERED:
            old = self._order.popleft()
            self._shown[old] -= 1
            if not self._shown[old]:
                del self._shown[old]


class _View:
    """Prints entries to stdout and notices to stderr."""

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json
        self._console = Screen(highlight=False, markup=False, soft_wrap=True, emoji=False)

    def show(self, entry: dict[str, Any]) -> None:
        if self._json:
            sys.stdout.write(terminal_json(json.dumps(entry)) + "\n")
            sys.stdout.flush()
            return
        at = datetime.fromtimestamp(entry["time"], UTC).astimezone()
        style = _STYLES.get(entry["level"], "")
        text = Text(f"{at.isoformat(' ', 'milliseconds')} ", style="")
        text.append(f"{terminal_text(entry['level']).upper():8} ", style=style)
        text.append(f"{terminal_text(entry['sender'])}: ", style="bold")
        # Keeps stack traces readable; the indentation distinguishes further lines from entries.
        lines = entry["message"].replace("\t", "    ").splitlines() or [""]
        text.append("\n    ".join(map(terminal_text, lines)), style=style)
        self._console.print(text)

    def notice(self, text: str) -> None:
        print(f"recodex-monitor: {terminal_text(text)}", file=sys.stderr)
