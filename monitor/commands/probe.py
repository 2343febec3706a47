"""``probe URL`` and ``probe -c FILE --job ID``: one check now, with its phases.

Exits with 0 for up and 1 for down. With --json it prints the result as it would be published.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from datetime import UTC, datetime

import msgspec
from rich.console import Console
from rich.text import Text

from monitor import messages
from monitor.commands.configured_jobs import load_configured_jobs
from monitor.commands.terminal_text import terminal_json, terminal_text
from monitor.daemon.config import load
from monitor.errors import MonitorError, SettingError, UsageError
from monitor.messages import Result
from monitor.probes.checking import Checks, check_job, result_of
from monitor.probes.checks import kind_of, kinds, load_kind
from monitor.probes.job import Job
from monitor.probes.schedule import Run
from monitor.settings import hide_url_secrets
from monitor.validation import decoding_problem

__all__ = ["add_arguments", "run"]

_PHASES = ("resolve", "connect", "tls", "processing", "transfer")
_CHART_WIDTH = 48
# (option, the job's field) -> the kinds that heed it; the rest is heeded by all.
_ONLY_FOR = {
    ("--method", "method"): ("http",),
    ("--status", "expected_status"): ("http",),
    ("--regexp", "body_regexp"): ("http", "tcp"),
    ("--ca-file", "ca_file"): ("http", "websocket"),
    ("--insecure", "verify_tls"): ("http", "websocket"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("url", nargs="?", metavar="URL", help="http(s)://, ws(s):// or tcp://")
    parser.add_argument("-c", "--config", metavar="FILE", help="take the job from this config")
    parser.add_argument("--job", type=int, metavar="ID", help="the job's id")
    parser.add_argument("--json", action="store_true", help="print the result as published")
    parser.add_argument("--timeout", type=float, metavar="S", help="s for one attempt (10)")
    parser.add_argument("--method", metavar="M", help="the request's method (GET)")
    parser.add_argument("--status", action="append", metavar="CODES", help="expected, as 200-299")
    parser.add_argument("--regexp", metavar="RE", help="must be found in the body or banner")
    parser.add_argument("--ca-file", metavar="PEM", help="who signs the site's certificate")
    parser.add_argument("--insecure", action="store_true", help="take any certificate")
    version = parser.add_mutually_exclusive_group()
    version.add_argument("-4", dest="ip", action="store_const", const="4", help="IPv4 only")
    version.add_argument("-6", dest="ip", action="store_const", const="6", help="IPv6 only")


def run(args: argparse.Namespace) -> int:
    """Check once and show what came of it."""
    job = _given_job(args) if args.url is not None else _configured_job(args)
    result = asyncio.run(_check(job))
    if args.json:
        print(terminal_json(messages.encode(result).decode()))
    else:
        _show(result)
    return 0 if result.up else 1


def _given_job(args: argparse.Namespace) -> Job:
    if args.job is not None or args.config is not None:
        raise UsageError("either a URL, or -c FILE and --job ID")
    given = {
        "timeout": args.timeout,
        "method": args.method,
        "expected_status": args.status,
        "body_regexp": args.regexp,
        "ca_file": args.ca_file,
        "ip_version": args.ip,
        "verify_tls": False if args.insecure else None,
    }
    fields = {name: value for name, value in given.items() if value is not None}
    kind = kind_of(args.url)
    if kind is None:
        if "://" in args.url:
            known = ", ".join(scheme for kind in kinds() for scheme in load_kind(kind).schemes)
            raise UsageError(f"{hide_url_secrets(args.url)!r} can't be checked: known are {known}")
        # "example.org" is what people type.
        args.url, kind = f"http://{args.url}", "http"
    for (option, name), heeding in _ONLY_FOR.items():
        if name in fields and kind not in heeding:
            raise UsageError(f"{option} means nothing for a URL of {kind}")
    try:
        job = msgspec.convert({"id": 1, "kind": kind, "url": args.url, **fields}, Job)
        job.verify()
    except msgspec.ValidationError as error:
        raise UsageError(decoding_problem(error, Job)) from None
    except SettingError as error:
        raise UsageError(str(error)) from None
    return job


def _configured_job(args: argparse.Namespace) -> Job:
    if args.config is None or args.job is None:
        raise UsageError("name a URL, or a job with -c FILE --job ID")
    loaded = load(args.config)
    jobs = asyncio.run(load_configured_jobs(loaded)).jobs
    found = next((job for job in jobs if job.id == args.job), None)
    if found is None:
        known = ", ".join(str(job.id) for job in jobs[:10]) or "none"
        more = ", ..." if len(jobs) > 10 else ""
        raise MonitorError(f"{args.config} has no job {args.job}; there are: {known}{more}")
    return found


async def _check(job: Job) -> Result:
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
    console = Console(file=sys.stdout, highlight=False)
    verdict = Text("up" if result.up else "down", style="bold green" if result.up else "bold red")
    status = "" if result.status is None else f", status {result.status}"
    url = terminal_text(result.url)
    console.print(verdict + Text(f"  {url}{status}", style=""), soft_wrap=True)
    if result.error is not None:
        # A certificate, for instance, names whom it likes.
        console.print(Text(f"  {terminal_text(result.error)}"), soft_wrap=True)
    total = sum(getattr(result.phases, name) for name in _PHASES)
    before = 0.0
    block = _block(console.encoding)
    for name in _PHASES:
        spent = getattr(result.phases, name)
        bar = _bar(before, spent, total, block)
        console.print(Text(f"  {name:<11}{_milliseconds(spent)}  ") + Text(bar, style="cyan"))
        before += spent
    whole = "response" if result.response_time is not None else "spent"
    attempts = f"  (attempt {result.attempt})" if result.attempt > 1 else ""
    console.print(Text(f"  {whole:<11}{_milliseconds(total)}{attempts}"))
    if result.certificate_expires_at is not None:
        day = datetime.fromtimestamp(result.certificate_expires_at, UTC)
        left = (result.certificate_expires_at - result.checked_at) / 86400
        when = f"in {left:.0f} days" if left >= 0 else f"{-left:.0f} days ago"
        console.print(Text(f"  certificate expires {day:%Y-%m-%d}, {when}"), soft_wrap=True)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:>9.1f} ms"


def _block(encoding: str) -> str:
    try:
        "█".encode(encoding)
    except UnicodeEncodeError:
        return "#"
    return "█"


def _bar(before: float, spent: float, total: float, block: str) -> str:
    """Return a phase's place in the whole."""
    if total <= 0 or spent <= 0:
        return ""
    start = round(before / total * _CHART_WIDTH)
    return " " * start + block * max(1, round((before + spent) / total * _CHART_WIDTH) - start)
