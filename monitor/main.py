"""The entry point of the program: exit status, and errors as one line.

It imports little before :func:`main` runs, because Ctrl-C before that shows a traceback.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monitor.errors import MonitorError

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit status: see docs/reference/exit-codes.md."""
    _open_standard_streams()
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        return 0


class _ClosedOutput(io.TextIOBase):
    def write(self, _: str) -> int:
        raise OSError(errno.EIO, "stdout is closed")


def _open_standard_streams() -> None:
    """Put /dev/null where stdin, stdout or stderr is closed.

    Their descriptors would go to the first files and sockets that are opened, and libraries take
    them for what they usually are. What a command prints to a closed stdout is an error.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free descriptor is this one.
            os.open(os.devnull, os.O_RDONLY if descriptor == 0 else os.O_WRONLY)
            os.set_inheritable(descriptor, True)
    if sys.stdout is None:
        sys.stdout = _ClosedOutput()
    if sys.stderr is None:
        sys.stderr = open(2, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115


def _failed(error: MonitorError) -> int:
    """Print the error, and return the exit status."""
    if not error.logged:
        from monitor.commands.terminal_text import terminal_text

        # It may contain text from a server.
        for each in error.lines():
            lines = [terminal_text(line) for line in each.split("\n")]
            print("recodex-monitor:", "\n".join(lines), file=sys.stderr)
    return error.exit_status


def _run(argv: list[str]) -> int:
    from monitor.commands.command_line import run
    from monitor.errors import DefectError, MonitorError

    try:
        try:
            return run(list(argv))
        finally:
            # Raise errors of buffered output here, not at the exit of the interpreter.
            sys.stdout.flush()
    except MonitorError as error:
        return _failed(error)
    except BrokenPipeError:
        # The reader of the output has closed the pipe.
        status = 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            return _failed(DefectError("internal error", error))
        print("recodex-monitor: cannot write the output:", error.strerror, file=sys.stderr)
        status = 1
    except Exception as error:  # noqa: BLE001 - no traceback for users
        return _failed(DefectError("internal error", error))
    # The interpreter would flush again, and print a traceback.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return status


if __name__ == "__main__":
    sys.exit(main())
