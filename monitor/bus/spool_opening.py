"""Opens the file of the spool, or raises an error that says what to do.

A wrong path in the config ends the daemon with status 78, and systemd does not restart it. A full
or failing disk ends it with status 1, and systemd restarts it. A damaged spool is set aside.
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
# The first bytes of an SQLite file: https://sqlite.org/fileformat.html#magic_header_string
_MAGIC = b"SQLite format 3\0"
# How many damaged spools to keep for inspection: the newest.
_KEPT_ASIDE = 3
_DAMAGE = ("SQLITE_NOTADB", "SQLITE_CORRUPT")
# Errors of a wrong path, which do not go away by themselves.
_WRONG_PATH = {errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}


def open_spool(path: Path, *, max_bytes: int) -> SpoolFile:
    """Open the spool, or create it; blocks.

    Raises SettingError if ``path`` cannot be a file or is a file of another program, and
    MonitorError for a problem of the disk or of permissions.
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
        raise MonitorError(f"cannot use the spool {path}: {damage}; check its disk") from None
    except OSError as error:
        if error.errno in _WRONG_PATH:
            raise SettingError(_KEY, f"cannot use {path}: {error.strerror}") from None
        raise MonitorError(_advice(path, str(error.strerror))) from None
    except sqlite3.Error as error:
        if path.is_dir():
            raise SettingError(_KEY, f"cannot use {path}: Is a directory") from None
        raise MonitorError(_advice(path, str(error))) from None


class _DamagedError(Exception):
    """The file is not an intact SQLite file; the text says why."""


def _open(path: Path, max_bytes: int) -> SpoolFile:
    try:
        return SpoolFile(path, max_bytes=max_bytes)
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorname", "").startswith(_DAMAGE):
            raise _DamagedError(str(error)) from None
        raise


def _set_aside(path: Path) -> None:
    """Rename a damaged spool and its log; raise SettingError for a file of another program."""
    with path.open("rb") as file:
        ours = file.read(len(_MAGIC)) == _MAGIC or path == BusSettings().path()
        size = os.fstat(file.fileno()).st_size
    if not ours:
        raise SettingError(_KEY, f"{path} is not a spool; choose another file")
    number = 1 + max(_set_aside_before(path), default=0)
    aside = path.with_name(f"{path.name}.corrupt-{number}")
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
    path.rename(aside)
    logger.warning(
        "spool: %s is damaged: set aside as %s (%d bytes), starting a new one", path, aside, size
    )
    # A failing disk may damage many: do not fill it with them.
    for old in sorted(_set_aside_before(path))[:-_KEPT_ASIDE]:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(f"{path.name}.corrupt-{old}{suffix}").unlink(missing_ok=True)


def _set_aside_before(path: Path) -> list[int]:
    """Return the numbers of the spools that were set aside."""
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
        remedy = "make room on its disk, and check the disk for errors"
    elif "locked" in problem:
        remedy = "another process has locked it; stop that process"
    else:
        remedy = f"give the daemon write access to {path.parent}"
    return f"cannot use the spool {path}: {problem}; {remedy}"
