"""``probe URL`` and ``probe -c FILE --job ID``: checks a site once and shows the phases.

Exits with 0 for up and 1 for down. With ``--json`` it prints the result as it would be published.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from datetime import UTC, datetime

from rich.text import Text

from monitor import messages
from monitor.commands.configured_jobs import load_configured_jobs
from monitor.commands.screen import Screen
from monitor.commands.terminal_text import terminal_json, terminal_text
from monitor.daemon.config import load
from monitor.errors import MonitorError, SettingError, UsageError
from monitor.messages import Result
from monitor.part import counted
from monitor.probes.checking import Checks, check_job, result_of
from monitor.probes.checks import KINDS, kind_of, load_kinds, read_job
from monitor.probes.job import Job, Option
from monitor.probes.schedule import Run
from monitor.settings import hide_url_secrets

__all__ = ["add_arguments", "run"]

_PHASES = ("resolve", "connect", "tls", "processing", "transfer")
_CHART_WIDTH = 48
# Name and length of a phase, before its bar.
_BESIDE_CHART = 28
_SCHEMES = [scheme for check in KINDS.values() for scheme in check.job.schemes]
# The options, and the kinds of checks that have them.
_OPTIONS: dict[Option, list[str]] = {}
for _kind, _one in KINDS.items():
    for _option in _one.options:
        _OPTIONS.setdefault(_option, []).append(_kind)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    known = ", ".join(f"{scheme}://" for scheme in _SCHEMES)
    parser.add_argument("url", nargs="?", metavar="URL", help=f"starts with one of {known}")
    parser.add_argument("-c", "--config", metavar="FILE", help="read the job from this config")
    parser.add_argument("--job", type=int, metavar="ID", help="the job's id")
    parser.add_argument(
        "--json", action="store_true", help="print the result as it would be published"
    )
    parser.add_argument(
        "--timeout", type=float, metavar="S", help="timeout of the attempt in s (default: 10)"
    )
    for option in _OPTIONS:
        if option.metavar is None:
            parser.add_argument(
                option.flag,
                dest=option.key,
                action="store_const",
                const=option.value,
                help=option.help,
            )
        else:
            parser.add_argument(
                option.flag,
                dest=option.key,
                action="append" if option.many else "store",
                metavar=option.metavar,
                type=option.type,
                help=option.help,
            )
    version = parser.add_mutually_exclusive_group()
    version.add_argument("-4", dest="ip", action="store_const", const="4", help="IPv4 only")
    version.add_argument("-6", dest="ip", action="store_const", const="6", help="IPv6 only")


def run(args: argparse.Namespace) -> int:
    """Check once and show the result."""
    job = _given_job(args) if args.url is not None else _configured_job(args)
    result = asyncio.run(_check(job))
    if args.json:
        print(terminal_json(messages.encode(result).decode()))
    else:
        _show(result)
    return 0 if result.up else 1


def _given_job(args: argparse.Namespace) -> Job:
    if args.job is not None or args.config is not None:
        raise UsageError("expected either a URL, or -c FILE and --job ID")
    kind = kind_of(args.url)
    if kind is None:
        if "://" in args.url:
            known = ", ".join(_SCHEMES)
            url = hide_url_secrets(args.url)
            raise UsageError(f"there is no kind of check for {url!r}; expected {known}")
        # "example.org" is what people type.
        args.url, kind = f"http://{args.url}", "http"
    given = {"timeout": args.timeout, "ip_version": args.ip}
    for option, knowing in _OPTIONS.items():
        value = getattr(args, option.key)
        if value is not None and kind not in knowing:
            names = ", ".join(knowing)
            raise UsageError(f"{option.flag}: unknown option for kind {kind}; known by {names}")
        given[option.key] = value
    keys = {key: value for key, value in given.items() if value is not None}
    try:
        return read_job({"id": 1, "kind": kind, "url": args.url, **keys})
    except SettingError as error:
        raise UsageError(_in_options(error, kind)) from None


def _in_options(error: SettingError, kind: str) -> str:
    """Return what is wrong, with the option that was given in place of the job's key."""
    flags = {"url": "URL", "timeout": "--timeout"}
    flags |= {option.key: option.flag for option, knowing in _OPTIONS.items() if kind in knowing}
    flag = flags.get(str(error.path[0])) if error.path else None
    return str(error) if flag is None else f"{flag}: {error.problem}"


def _configured_job(args: argparse.Namespace) -> Job:
    if args.config is None or args.job is None:
        raise UsageError("expected a URL, or -c FILE and --job ID")
    loaded = load(args.config)
    jobs = asyncio.run(load_configured_jobs(loaded)).jobs
    found = next((job for job in jobs if job.id == args.job), None)
    if found is None:
        known = ", ".join(str(job.id) for job in jobs[:10]) or "none"
        more = ", ..." if len(jobs) > 10 else ""
        raise MonitorError(f"{args.config} has no job {args.job}; there are: {known}{more}")
    return found


async def _check(job: Job) -> Result:
    load_kinds([job])
    checks = Checks(resolver_threads=1)
    try:
        now = time.time()
        outcome, attempt = await check_job(job, checks.prepare(job))
        run = Run(job.id, round(now, 3), 0)
        return result_of(
            job, run, outcome, url=job.shown_url, checked_at=now, producer=1, attempt=attempt
        )
    finally:
        await checks.close()


def _show(result: Result) -> None:
    console = Screen(file=sys.stdout, highlight=False)
    state = Text("up" if result.up else "down", style="bold green" if result.up else "bold red")
    status = "" if result.status is None else f", status {result.status}"
    status += ", degraded" if result.degraded else ""
    url = terminal_text(result.url)
    console.print(state + Text(f"  {url}{status}", style=""), soft_wrap=True)
    if result.error is not None:
        # A certificate, for instance, names whom it likes.
        console.print(Text(f"  {terminal_text(result.error)}"), soft_wrap=True)
    total = sum(getattr(result.phases, name) for name in _PHASES)
    before = 0.0
    for name in _PHASES:
        spent = getattr(result.phases, name)
        bar = _bar(before, spent, total, min(_CHART_WIDTH, console.width - _BESIDE_CHART))
        console.print(Text(f"  {name:<11}{_milliseconds(spent)}  ") + Text(bar, style="cyan"))
        before += spent
    whole = "response" if result.response_time is not None else "spent"
    attempts = f"  (attempt {result.attempt})" if result.attempt > 1 else ""
    console.print(Text(f"  {whole:<11}{_milliseconds(total)}{attempts}"))
    if result.certificate_expires_at is not None:
        day = datetime.fromtimestamp(result.certificate_expires_at, UTC)
        left = (result.certificate_expires_at - result.checked_at) / 86400
        days = counted(abs(round(left)), "day")
        when = f"in {days}" if left >= 0 else f"{days} ago"
        console.print(Text(f"  certificate expires {day:%Y-%m-%d}, {when}"), soft_wrap=True)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:>9.1f} ms"


def _bar(before: float, spent: float, total: float, width: int) -> str:
    """Return the bar of a phase in a chart of this width, which may be too small for any."""
    if total <= 0 or spent <= 0 or width < 1:
        return ""
    start = min(round(before / total * width), width - 1)
    return " " * start + "█" * max(1, round((before + spent) / total * width) - start)
