"""The command line: the daemon and its commands.

``recodex-monitor [-c FILE]`` runs the daemon; ``recodex-monitor COMMAND`` one of
:data:`monitor.commands.COMMANDS`. Every error is one line on stderr, and no traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from monitor import __version__
from monitor.commands import COMMANDS
from monitor.errors import MonitorError, UsageError
from monitor.libraries import needed_by

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line like all others."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status (REFERENCE: 0, 1, 2, 75, 78)."""
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except MonitorError as error:
        if not error.logged:
            print(f"recodex-monitor: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        # Whoever read our output has enough; what Python flushes at exit must not complain.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0


def _run(argv: list[str]) -> int:
    parser = _Parser(
        prog="recodex-monitor",
        description="Run the daemon, or one of its commands.",
        epilog="commands:\n"
        + "\n".join(f"  {name:20} {text}" for name, (_, text) in COMMANDS.items())
        + "\n\nrecodex-monitor COMMAND --help tells more.",
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
        from monitor.systemd import hold_reloads

        # Before all else that a daemon loads.
        hold_reloads()
        from monitor.daemon import run_daemon

        return run_daemon(args.config)
    if args.command not in COMMANDS:
        near = difflib.get_close_matches(args.command, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else "see recodex-monitor --help"
        raise UsageError(f"no command {args.command!r}; {hint}")
    module_name, text = COMMANDS[args.command]
    with needed_by(args.command):
        module = importlib.import_module(f"monitor.commands.{module_name}")
    command = _Parser(prog=f"recodex-monitor {args.command}", description=text)
    module.add_arguments(command)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What the terminal's encoding lacks is shown escaped, as on stderr.
        sys.stdout.reconfigure(errors="backslashreplace")
    given = args.arguments + (["-c", args.config] if args.config is not None else [])
    with needed_by(args.command):
        status: int = module.run(command.parse_args(given))
    # Say now what the interpreter would otherwise fail to flush at exit.
    sys.stdout.flush()
    return status


if __name__ == "__main__":
    sys.exit(main())
