"""The command line: the daemon and its commands.

``recodex-monitor [-c FILE]`` runs the daemon, ``recodex-monitor COMMAND`` one of
:data:`monitor.commands.COMMANDS`. Every error is one line on stderr, without a traceback.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import io
import sys
from typing import NoReturn

from monitor import __version__
from monitor.commands import COMMANDS
from monitor.errors import UsageError
from monitor.libraries import needed_by

__all__ = ["run"]


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises UsageError, which prints one line."""

    def error(self, message: str) -> NoReturn:
        one_line = message.replace("\n", "\\n")
        raise UsageError(f"{one_line}; see {self.prog} --help")


def run(argv: list[str]) -> int:
    """Run the command in ``argv`` and return the exit status; raises MonitorError."""
    parser = _Parser(
        prog="recodex-monitor",
        usage="recodex-monitor [-h] [-c FILE] [--version] [COMMAND ...]",
        description="Run the daemon, or one of its commands.",
        epilog="commands:\n"
        + "\n".join(f"  {name:20} {text}" for name, (_, text) in COMMANDS.items())
        + "\n\nrecodex-monitor COMMAND --help shows the options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-c", "--config", metavar="FILE", help="the config (default: built-in defaults)"
    )
    parser.add_argument("--version", action="version", version=f"recodex-monitor {__version__}")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.command is None:
        from monitor.daemon.signals import hold_signals

        # Before importing the rest of the daemon.
        hold_signals()
        from monitor.daemon.lifecycle import run_daemon

        return run_daemon(args.config)
    if args.command not in COMMANDS:
        near = difflib.get_close_matches(args.command, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else "see recodex-monitor --help"
        raise UsageError(f"unknown command {args.command!r}; {hint}")
    module_name, text = COMMANDS[args.command]
    with needed_by(args.command):
        module = importlib.import_module(f"monitor.commands.{module_name}")
    command = _Parser(prog=f"recodex-monitor {args.command}", description=text)
    module.add_arguments(command)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Escape characters that the encoding of the terminal lacks, as on stderr.
        sys.stdout.reconfigure(errors="backslashreplace")
    given = (["-c", args.config] if args.config is not None else []) + args.arguments
    # Options may stand anywhere: `token create --role reader NAME`.
    parsed = command.parse_intermixed_args(given)
    with needed_by(args.command):
        status: int = module.run(parsed)
    return status
