"""``follow CHANNEL``: a job's progress in the terminal, as a bar.

Exits with 0 on FINISHED, with 1 on an end without it, and tries again where the relay is
away. Speaks the old protocol: every connection gets the channel's whole history first.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import time
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Task, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.sync.client import ClientConnection, connect

from monitor.commands.progress import Progress
from monitor.config import load
from monitor.errors import MonitorError, UnavailableError, UsageError
from monitor.settings import address_text, hide_url_secrets

__all__ = ["add_arguments", "run"]

_OPEN_S = 10.0
_RETRY_S = (0.5, 15.0)
# Ends that another try would not change: not allowed, not understood.
_FINAL_CODES = frozenset({1002, 1003, 1007, 1008, 1009, 1010})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("channel", help="the job's channel, such as student_42")
    parser.add_argument("--expect", type=int, metavar="N", help="how many tasks the job has")
    parser.add_argument("--url", metavar="WS", help="the relay, such as ws://127.0.0.1:4567/")
    parser.add_argument(
        "--wait", type=float, metavar="S", help="give up after S seconds without a relay"
    )
    parser.add_argument("--json", action="store_true", help="print the messages as they come")
    parser.add_argument(
        "-c", "--config", metavar="FILE", help="take the relay's address from this config"
    )


def run(args: argparse.Namespace) -> int:
    """Follow the channel to its end."""
    if not args.channel:
        raise UsageError("the channel's name is empty")
    if args.expect is not None and args.expect < 1:
        raise UsageError("--expect: at least 1 task")
    url = args.url or _configured_url(args.config)
    view: _View = (
        _Json()
        if args.json
        else _Terminal(args.channel)
        if sys.stdout.isatty()
        else _Lines(args.channel)
    )
    pause, away_since = _RETRY_S[0], time.monotonic()
    with view:
        while True:
            progress = Progress(expected=args.expect)
            try:
                with _connected(url) as connection:
                    away_since, pause = time.monotonic(), _RETRY_S[0]
                    return _follow(connection, args.channel, progress, view)
            except _Away as away:
                if args.wait is not None and time.monotonic() - away_since >= args.wait:
                    raise UnavailableError(
                        hide_url_secrets(url), f"{away}; gave up waiting"
                    ) from None
                view.away(f"{hide_url_secrets(url)}: {away}; trying again")
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter is no secret
            pause = min(pause * 2, _RETRY_S[1])


class _Away(Exception):  # noqa: N818 - it never leaves this module
    """The relay is not there now; trying again may help."""


def _configured_url(file: str | None) -> str:
    config = load(file).config
    host, port = config.websocket_uri
    # An address to listen on everywhere is reached at home.
    host = {"*": "127.0.0.1", "": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    secure = config.relay is not None and config.relay.tls is not None
    return f"{'wss' if secure else 'ws'}://{address_text((host, port))}/"


@contextlib.contextmanager
def _connected(url: str) -> Iterator[ClientConnection]:
    shown = hide_url_secrets(url)
    try:
        manager = connect(url, open_timeout=_OPEN_S, compression=None, max_size=2**20)
    except InvalidURI:
        raise UsageError(f"--url: {shown} is not ws://HOST:PORT/ or wss://HOST:PORT/") from None
    except InvalidStatus as error:
        if error.response.status_code in (429, 500, 502, 503, 504):
            raise _Away(f"answered {error.response.status_code}") from None
        raise MonitorError(f"{shown}: refused with status {error.response.status_code}") from None
    except TimeoutError:
        raise _Away("no answer in time") from None
    except InvalidHandshake as error:
        raise MonitorError(f"{shown}: no WebSocket there: {error}") from None
    except (OSError, EOFError) as error:
        raise _Away(getattr(error, "strerror", None) or "no answer") from None
    with manager as connection:
        yield connection


def _follow(connection: ClientConnection, channel: str, progress: Progress, view: _View) -> int:
    try:
        connection.send(channel)
        while True:
            text = connection.recv()
            try:
                line = progress.take(str(text))
            except ValueError:
                raise MonitorError(f"not a relay's message: {str(text)[:80]!r}") from None
            view.message(str(text), line, progress)
    except ConnectionClosed as closed:
        code = closed.rcvd.code if closed.rcvd is not None else 1006
        reason = closed.rcvd.reason if closed.rcvd is not None else ""
    if code == 1000:
        view.end(progress)
        return 0 if progress.finished else 1
    if code in _FINAL_CODES:
        raise MonitorError(f"the relay ended the connection: {reason or code}")
    raise _Away(f"the connection is lost ({reason or code})")


class _View(Protocol):
    """How messages are shown."""

    def __enter__(self) -> object: ...
    def __exit__(self, *_: object) -> None: ...
    def message(self, text: str, line: str, progress: Progress) -> None:
        """Show one message."""

    def away(self, problem: str) -> None:
        """Show that the relay is away."""

    def end(self, progress: Progress) -> None:
        """Show how the job ended."""


class _Quiet:
    """A view that is neither opened nor closed, and complains on stderr, once a reason."""

    _said = ""

    def __enter__(self) -> object:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def away(self, problem: str) -> None:
        if problem != self._said:
            self._said = problem
            print(f"recodex-monitor: {problem}", file=sys.stderr, flush=True)


class _Json(_Quiet):
    def message(self, text: str, line: str, progress: Progress) -> None:
        del line, progress
        print(text, flush=True)

    def end(self, progress: Progress) -> None:
        del progress


class _Lines(_Quiet):
    def __init__(self, channel: str) -> None:
        self._channel = channel

    def message(self, text: str, line: str, progress: Progress) -> None:
        del text, progress
        print(f"{self._channel}: {line}", flush=True)

    def end(self, progress: Progress) -> None:
        how = (
            "finished"
            if progress.finished
            else f"ended without FINISHED (last: {progress.command or 'nothing'})"
        )
        print(f"{self._channel}: {how}, {progress.summary()}", flush=True)


class _Counts(TextColumn):
    """Completed, failed and skipped, each in its colour."""

    def __init__(self) -> None:
        super().__init__(
            "[green]{task.fields[completed_tasks]} done[/] [red]{task.fields[failed]} failed[/]"
            " [yellow]{task.fields[skipped]} skipped[/]"
        )


class _Total(TextColumn):
    """How many of how many."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task):  # type: ignore[no-untyped-def]
        self.text_format = "{task.completed:.0f}" + ("/{task.total:.0f}" if task.total else "")
        return super().render(task)


class _Terminal:
    """A bar that stays in place."""

    def __init__(self, channel: str) -> None:
        self._channel = channel
        self._console = Console()
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            _Total(),
            _Counts(),
            TextColumn("{task.fields[last]}"),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._task = self._bar.add_task(
            escape(channel), total=None, completed_tasks=0, failed=0, skipped=0, last="waiting"
        )

    def __enter__(self) -> object:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def message(self, text: str, line: str, progress: Progress) -> None:
        del text
        total = progress.expected or (progress.done if progress.finished else None)
        self._bar.update(
            self._task,
            total=total,
            completed=progress.done,
            completed_tasks=progress.completed,
            failed=progress.failed,
            skipped=progress.skipped,
            last=escape(line.split(" (", maxsplit=1)[0]),
        )

    def away(self, problem: str) -> None:
        self._bar.update(self._task, last=f"[red]{escape(problem)}[/]")

    def end(self, progress: Progress) -> None:
        last = "[green]FINISHED[/]" if progress.finished else "[red]ended without FINISHED[/]"
        self._bar.update(self._task, last=last)
