"""Opens the spool's file, and says what to do where that fails.

What the config names wrongly ends the daemon with status 78, and nothing starts it again. A
disk that is full or fails ends it with 1, so that its service manager tries again. A damaged
spool of this daemon's own is set aside.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from monitor.bus.settings import BusSettings
from monitor.bus.spool_file import NotASpoolError, SpoolFile
from monitor.errors import MonitorError, SettingError

__all__ = ["open_spool"]

logger = logging.getLogger("monitor.bus")

_KEY = ("bus", "file")
# What every SQLite file begins with: https://sqlite.org/fileformat.html#magic_header_string
_MAGIC = b"SQLite format 3\0"
# How many damaged spools stay: the newest, to be looked at.
_KEPT_ASIDE = 3
_DAMAGE = ("SQLITE_NOTADB", "SQLITE_CORRUPT")
# Paths that no waiting makes right.
_WRONG_PATH = {errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}


def open_spool(path: Path, *, max_bytes: int) -> SpoolFile:
    """Open the spool, or create it; blocks.

    Raises SettingError where ``path`` is no place for a spool or another program's file, and
    MonitorError where the disk or a permission is in the way.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(_DamagedError):
            return _open(path, max_bytes)
        # Several processes may share the spool: only the first sets it aside.
        with _directory_lock(path.parent):
            with contextlib.suppress(_DamagedError):
                return _open(path, max_bytes)
            _set_aside(path)
            return _open(path, max_bytes)
    except NotASpoolError:
        raise SettingError(_KEY, f"{path} is another program's database") from None
    except _DamagedError as damage:
        raise MonitorError(f"cannot use the spool {path}: {damage}; look at its disk") from None
    except OSError as error:
        if error.errno in _WRONG_PATH:
            raise SettingError(_KEY, f"cannot use {path}: {error.strerror}") from None
        raise MonitorError(_advice(path, str(error.strerror))) from None
    except sqlite3.Error as error:
        if path.is_dir():
            raise SettingError(_KEY, f"cannot use {path}: Is a directory") from None
        raise MonitorError(_advice(path, str(error))) from None


class _DamagedError(Exception):
    """The file is no whole SQLite file; its text says why."""


def _open(path: Path, max_bytes: int) -> SpoolFile:
    try:
        return SpoolFile(path, max_bytes=max_bytes)
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorname", "").startswith(_DAMAGE):
            raise _DamagedError(str(error)) from None
        raise


def _set_aside(path: Path) -> None:
    """Move a damaged spool, with its log, out of the way; refuse what may be somebody else's."""
    with path.open("rb") as file:
        ours = file.read(len(_MAGIC)) == _MAGIC or path == BusSettings().path()
        size = os.fstat(file.fileno()).st_size
    if not ours:
        raise SettingError(_KEY, f"{path} is not a spool of this daemon; name another")
    number = 1 + max(_set_aside_before(path), default=0)
    aside = path.with_name(f"{path.name}.corrupt-{number}")
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
    path.rename(aside)
    logger.warning(
        "spool: %s is damaged: set aside as %s (%d bytes), and a new one begins", path, aside, size
    )
    # A disk that damages one after the other must not be filled with them.
    for old in sorted(_set_aside_before(path))[:-_KEPT_ASIDE]:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(f"{path.name}.corrupt-{old}{suffix}").unlink(missing_ok=True)


def _set_aside_before(path: Path) -> list[int]:
    """Return the numbers of the damaged spools that were set aside."""
    prefix = f"{path.name}.corrupt-"
    names = [other.name for other in path.parent.iterdir() if other.name.startswith(prefix)]
    numbers = [name.removeprefix(prefix) for name in names]
    return [int(number) for number in numbers if number.isascii() and number.isdigit()]


@contextlib.contextmanager
def _directory_lock(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _advice(path: Path, problem: str) -> str:
    if any(word in problem for word in ("full", "space", "quota", "I/O", "Input/output")):
        remedy = "make room on its disk, and look whether the disk fails"
    elif "locked" in problem:
        remedy = "another process holds it; end that one"
    else:
        remedy = f"let the daemon write in {path.parent}"
    return f"cannot use the spool {path}: {problem}; {remedy}"
