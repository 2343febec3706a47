"""The entry point of the program: exit status, and errors as one line.

It imports little before :func:`main` runs, because Ctrl-C before that shows a traceback.
"""

from __future__ import annotations

import errno
import os
import sys

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit status: see docs/reference/exit-codes.md."""
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        return 0


def _run(argv: list[str]) -> int:
    from monitor.commands.command_line import run
    from monitor.errors import MonitorError

    try:
        try:
            return run(list(argv))
        finally:
            # Raise errors of buffered output here, not at the exit of the interpreter.
            if sys.stdout is not None:
                sys.stdout.flush()
    except MonitorError as error:
        if not error.logged:
            from monitor.commands.terminal_text import terminal_text

            # It may contain text from a server.
            lines = [terminal_text(line) for line in str(error).split("\n")]
            print("recodex-monitor:", "\n".join(lines), file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:
        # The reader of the output has closed the pipe.
        status = 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        print("recodex-monitor: cannot write the output:", error.strerror, file=sys.stderr)
        status = 1
    # The interpreter would flush again, and print a traceback.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return status


if __name__ == "__main__":
    sys.exit(main())
