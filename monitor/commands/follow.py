"""``follow CHANNEL``: shows the progress of a job in the terminal, as a bar.

Exits with 0 on FINISHED and with 1 on an end without it. Reconnects if the relay is unavailable,
resumes, and reports where messages may be missing.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Column

from monitor.commands.arguments import channel_name, seconds, server_url
from monitor.commands.found_config import find_config
from monitor.commands.progress import Progress
from monitor.commands.screen import Screen
from monitor.commands.terminal_text import terminal_json, terminal_text
from monitor.errors import MonitorError, UnavailableError, UsageError
from monitor.relay.client import RelayClient
from monitor.relay.client_position import Away, End, Feed, Gap, Message, Refused, Reset, Unknown
from monitor.settings import address_text

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("channel", help="the job's channel, such as student_42")
    parser.add_argument("--expect", type=int, metavar="N", help="how many tasks the job has")
    parser.add_argument("--url", metavar="WS", help="the relay, such as ws://127.0.0.1:4567/")
    parser.add_argument(
        "--wait", type=seconds, metavar="S", help="give up after S seconds without a relay"
    )
    parser.add_argument("--json", action="store_true", help="print the messages as they are")
    parser.add_argument(
        "-c", "--config", metavar="FILE", help="read the address of the relay from this config"
    )


def run(args: argparse.Namespace) -> int:
    """Follow the channel to its end."""
    channel_name(args.channel)
    if args.expect is not None and args.expect < 1:
        raise UsageError("--expect: expected at least 1 task")
    if args.url is not None:
        server_url("--url", args.url, ("ws", "wss"))
    url = args.url or _configured_url(args.config)
    name = terminal_text(args.channel)
    view: _View = _Json() if args.json else _Lines(name)
    if sys.stdout.isatty() and not args.json:
        console = Screen()
        # A dumb terminal cannot redraw a line: print a line per message.
        if not console.is_dumb_terminal:
            view = _Terminal(name, console, args.expect)
    with view:
        return asyncio.run(_follow(RelayClient(url, [args.channel]), args, view))


async def _follow(client: RelayClient, args: argparse.Namespace, view: _View) -> int:
    progress = Progress(expected=args.expect)
    away_since: float | None = None
    fed = False
    async with client:
        async for event in client:
            if isinstance(event, Away):
                now = time.monotonic()
                away_since = now if away_since is None else away_since
                if args.wait is not None and now - away_since + event.delay_s >= args.wait:
                    server, _, problem = event.problem.rpartition(": ")
                    raise UnavailableError(server, f"{problem}; gave up waiting")
                view.note(f"{event.problem}; trying again")
                continue
            away_since = None
            if isinstance(event, Message):
                try:
                    line = terminal_text(progress.take(event.text))
                except ValueError as problem:
                    raise MonitorError(f"{problem}: {event.text[:80]!r}") from None
                view.message(event.text, line, progress)
            elif isinstance(event, Reset):
                view.note("messages may be missing: the relay could not resume")
                if event.anew:
                    progress = Progress(expected=args.expect)
            elif isinstance(event, Gap):
                view.note(
                    f"messages may be missing after message {event.seq}: no broker was connected"
                )
            elif isinstance(event, Unknown):
                view.note("the relay has no message of this channel yet; waiting for the first")
            elif isinstance(event, Feed):
                # No broker yet is not an interruption.
                if fed and event.state != "up":
                    view.note("a broker disconnected; messages may be missing")
                fed = event.state == "up"
            elif isinstance(event, Refused):
                raise MonitorError(event.problem)
            elif isinstance(event, End):
                view.end(progress)
                return 0 if event.finished else 1
    raise MonitorError("the relay ended the channel without an end message")


def _configured_url(file: str | None) -> str:
    config = find_config(file, "websocket_uri", "relay.tls.certificate").loaded.config
    hosts, port = config.websocket_uri
    host = hosts if isinstance(hosts, str) else hosts[0]
    # Connect to loopback if the relay listens on all addresses.
    host = {"*": "127.0.0.1", "": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    secure = config.relay is not None and config.relay.tls is not None
    return f"{'wss' if secure else 'ws'}://{address_text((host, port))}/"


class _View(Protocol):
    """How messages are shown."""

    def __enter__(self) -> object: ...
    def __exit__(self, *_: object) -> None: ...
    def message(self, text: str, line: str, progress: Progress) -> None:
        """Show one message."""

    def note(self, text: str) -> None:
        """Show a warning."""

    def end(self, progress: Progress) -> None:
        """Show how the job ended."""


class _Quiet:
    """A view without a screen; prints a warning to stderr if it differs from the last one."""

    _said = ""

    def __enter__(self) -> object:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def note(self, text: str) -> None:
        if text != self._said:
            self._said = text
            print(f"recodex-monitor: {terminal_text(text)}", file=sys.stderr, flush=True)


class _Json(_Quiet):
    def message(self, text: str, line: str, progress: Progress) -> None:
        del line, progress
        print(terminal_json(text), flush=True)

    def end(self, progress: Progress) -> None:
        del progress


class _Lines(_Quiet):
    def __init__(self, channel: str) -> None:
        self._channel = channel

    def message(self, text: str, line: str, progress: Progress) -> None:
        del text, progress
        print(f"{self._channel}: {line}", flush=True)

    def end(self, progress: Progress) -> None:
        print(f"{self._channel}: {_ending(progress)}", flush=True)


def _ending(progress: Progress) -> str:
    last = terminal_text(progress.command) or "nothing"
    how = "finished" if progress.finished else f"ended without FINISHED (last: {last})"
    return f"{how}, {progress.summary()}"


# The width without the name of the channel and the bar: total, counts, the beginning of the last
# message, time, and spaces.
_BESIDE_BAR = 48
_BAR = (8, 30)


class _Counts(TextColumn):
    """Failed and skipped tasks, each in its colour."""

    def __init__(self) -> None:
        super().__init__(
            "[red]{task.fields[failed]} failed[/] [yellow]{task.fields[skipped]} skipped[/]"
        )


class _Total(TextColumn):
    """Completed tasks of all tasks."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task):  # type: ignore[no-untyped-def]
        self.text_format = "{task.completed:.0f}" + ("/{task.total:.0f}" if task.total else "")
        return super().render(task)


class _Terminal:
    """A bar that is redrawn in place.

    If the terminal is too narrow for the counts, they are printed after the end of the job.
    """

    def __init__(self, channel: str, console: Console, expected: int | None) -> None:
        self._channel = channel
        room = console.width - len(channel) - _BESIDE_BAR
        self._narrow = room < _BAR[0]
        # Only the last message shrinks.
        rest = Column(ratio=1, no_wrap=True, overflow="crop")
        last = TextColumn("{task.fields[last]}", table_column=rest)
        name = channel
        columns: tuple[ProgressColumn, ...]
        if self._narrow:
            longest = max(3, console.width // 3)
            name = channel if len(channel) <= longest else f"{channel[: longest - 2]}.."
            columns = (BarColumn(bar_width=min(_BAR[0], console.width // 5)), _Total(), last)
        else:
            bar = BarColumn(bar_width=min(_BAR[1], room))
            columns = (bar, _Total(), _Counts(), last, TimeElapsedColumn())
        self._bar = Bar(TextColumn("{task.description}"), *columns, console=console, expand=True)
        self._task = self._bar.add_task(
            escape(name), total=expected, failed=0, skipped=0, last="waiting"
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
            failed=progress.failed,
            skipped=progress.skipped,
            last=escape(line.split(" (", maxsplit=1)[0]),
        )

    def note(self, text: str) -> None:
        self._bar.update(self._task, last=f"[red]{escape(terminal_text(text))}[/]")

    def end(self, progress: Progress) -> None:
        last = "[green]FINISHED[/]" if progress.finished else "[red]ended without FINISHED[/]"
        self._bar.update(self._task, last=last)
        if self._narrow:
            self._bar.stop()
            print(f"{self._channel}: {_ending(progress)}", flush=True)
