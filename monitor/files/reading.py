"""Reads a file that people name, whatever is at that path.

The path may lead to a pipe that nobody writes to, a device, a directory, a file without an end,
or a network file system that hangs. All of these are an OSError with a text for people, after a
bounded time.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from monitor.files.threads import begin_aside

__all__ = ["FileStamp", "file_identity", "file_kind", "file_names", "file_stamp", "read_file"]

T = TypeVar("T")

# A file system that takes longer than this counts as one that hangs.
_LIMIT_S = 10.0
# For a config that a person types or a program pipes.
_OWN_LIMIT_S = 60.0
_OWN = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/", "/dev/null")
_PIECE_BYTES = 1 << 20

FileStamp = tuple[int, int, int, int]
"""What changes when a file is written or replaced: device, inode, size and time."""

# Calls that took too long and may still hang. A path among them gets no second thread.
_late: dict[str, Future[Any]] = {}


def read_file(file: str | os.PathLike[str], *, max_bytes: int, own: bool = False) -> bytes:
    """Return what a regular file holds; raise OSError for another kind, or a longer file.

    ``own`` says that the file was named on the command line, where ``/dev/stdin``,
    ``/dev/fd/N`` and ``/dev/null`` may be of any kind.
    """
    path = os.fspath(file)
    own = own and path.startswith(_OWN)
    limit_s = _OWN_LIMIT_S if own else _LIMIT_S
    return _within(limit_s, path, lambda: _read(path, max_bytes, any_kind=own))


def file_stamp(file: str | os.PathLike[str]) -> FileStamp | None:
    """Return the file's stamp, or None where it is missing or its file system does not answer."""
    found = _stat(file)
    if found is None:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def file_identity(file: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Return what all names of the file have in common, or None as :func:`file_stamp` does."""
    found = _stat(file)
    return None if found is None else (found.st_dev, found.st_ino)


def file_kind(file: str | os.PathLike[str]) -> str | None:
    """Return what is there instead of a regular file, if that is known: ``a pipe``."""
    found = _stat(file)
    return None if found is None or stat.S_ISREG(found.st_mode) else _kind(found.st_mode)


def _stat(file: str | os.PathLike[str]) -> os.stat_result | None:
    path = os.fspath(file)
    try:
        return _within(_LIMIT_S, path, lambda: Path(path).stat())
    except (OSError, ValueError):
        return None


def file_names(directory: str | os.PathLike[str]) -> list[str]:
    """Return the names in a directory, in order; raise OSError."""
    path = os.fspath(directory)
    return _within(_LIMIT_S, path, lambda: sorted(item.name for item in Path(path).iterdir()))


def _read(path: str, max_bytes: int, *, any_kind: bool) -> bytes:
    # Without O_NONBLOCK a pipe that has no writer would block here.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | (0 if any_kind else os.O_NONBLOCK)
    try:
        descriptor = os.open(path, flags)
    except ValueError:
        raise OSError(errno.EINVAL, "a file name cannot contain NUL") from None
    try:
        kind = os.fstat(descriptor).st_mode
        if not any_kind and not stat.S_ISREG(kind):
            raise OSError(errno.EINVAL, f"{_kind(kind)}, not a regular file")
        content = bytearray()
        while piece := os.read(descriptor, min(_PIECE_BYTES, max_bytes + 1 - len(content))):
            content += piece
            if len(content) > max_bytes:
                raise OSError(errno.EFBIG, f"longer than {max_bytes} bytes")
        return bytes(content)
    finally:
        os.close(descriptor)


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a directory"
    return "a pipe" if stat.S_ISFIFO(mode) else "a device or a socket"


def _within(limit_s: float, path: str, call: Callable[[], T]) -> T:
    late = _late.get(path)
    if late is not None:
        if not late.done():
            raise OSError(errno.ETIMEDOUT, "its file system does not answer")
        _late.pop(path, None)
    outcome = begin_aside(call)
    try:
        return outcome.result(limit_s)
    except TimeoutError:
        if outcome.done():
            # The file system's own words.
            raise
        _late[path] = outcome
        raise OSError(errno.ETIMEDOUT, f"no answer within {limit_s:g} s") from None
