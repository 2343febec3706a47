"""Standard output, of which a program says in one line that it can't be written.

A disk that is full and a stdout that is closed are no defects of a command: what fails is an
:class:`OutputError` wherever it prints, and nothing is left that the interpreter would try
again, and complain of, at its end.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

from monitor.errors import OutputError

__all__ = ["checked_output"]

_STDOUT = 1


class _Stdout(io.FileIO):
    """The file descriptor; a closed pipe stays a BrokenPipeError, for who reads has enough."""

    def __init__(self) -> None:
        super().__init__(_STDOUT, "w", closefd=False)

    def write(self, data: Any, /) -> int:
        try:
            written: int | None = super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            closed = error.errno == errno.EBADF
            raise OutputError("stdout is closed" if closed else str(error.strerror)) from None
        if written is None:
            raise OutputError(os.strerror(errno.EAGAIN))
        return written


@contextlib.contextmanager
def checked_output() -> Iterator[None]:
    """Have whatever is printed to stdout within written at the end, or raise OutputError."""
    if sys.stdout is None:
        _hold_the_place()
    if sys.stdout is sys.__stdout__:
        sys.stdout = _checked(sys.stdout)
    try:
        try:
            yield
        except SystemExit:  # after --help
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    finally:
        try:
            sys.stdout.flush()
        except (OSError, OutputError):
            _give_up()


def _checked(stream: object) -> io.TextIOWrapper:
    raw = _Stdout()
    if not isinstance(stream, io.TextIOWrapper):
        return io.TextIOWrapper(io.BufferedWriter(raw))
    # Unbuffered (PYTHONUNBUFFERED) it stays.
    bare = isinstance(stream.buffer, io.RawIOBase)
    return io.TextIOWrapper(
        raw if bare else io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _hold_the_place() -> None:
    """Keep stdout's number from a file or connection opened later; what is written fails."""
    closed = os.open(os.devnull, os.O_RDONLY)
    if closed != _STDOUT:
        os.dup2(closed, _STDOUT)


def _give_up() -> None:
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
