"""Finds the jobs of the daemon that a line of the command line is about, for completion.

The user who presses Tab wants jobs or nothing, and soon: no errors, and the daemon has 2 s.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import threading
from collections.abc import Callable

from monitor.commands.api import Api, add_api_arguments
from monitor.commands.terminal_text import terminal_text

__all__ = ["print_jobs"]

_LIMIT_S = 2.0
_MOST = 1000


def print_jobs(line: str, form: Callable[[str, str], str]) -> None:
    """Print the ids and names, one job a line, as ``form`` makes it; ends the process."""
    found: list[str] = []

    def find() -> None:
        found.extend(form(str(job["id"]), _name(job)) for job in _jobs(line))

    # Not even a name that is not resolved may hold up the shell.
    thread = threading.Thread(target=find, daemon=True)
    threading.excepthook = lambda _: None
    thread.start()
    thread.join(_LIMIT_S)
    sys.stdout.write("".join(f"{each}\n" for each in found))
    sys.stdout.flush()
    os._exit(0)


def _jobs(line: str) -> list[dict[str, str]]:
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    add_api_arguments(parser)
    try:
        words = shlex.split(line)
    except ValueError:
        return []  # within a quoted text
    args, _ = parser.parse_known_args(words)
    found = Api(args).request("GET", "/job", {"limit": _MOST}, timeout_s=_LIMIT_S)
    return list(found["items"])


def _name(job: dict[str, str]) -> str:
    return terminal_text(job["name"] or job["url"])
