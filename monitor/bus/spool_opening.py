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
from monitor.bus.spool_file import SpoolFile
from monitor.errors import MonitorError, SettingError
from monitor.sqlite import own_file
from monitor.sqlite.own_file import DamagedFileError, ForeignFileError

__all__ = ["open_spool"]

logger = logging.getLogger("monitor.bus")

_KEY = ("bus", "file")
# How many damaged spools to keep for inspection: the newest.
_KEPT_ASIDE = 3
# Errors of a wrong path, which do not go away by themselves.
_WRONG_PATH = {errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}


def open_spool(path: Path, *, max_bytes: int, thorough: bool = False) -> SpoolFile:
    """Open the spool, or create it; blocks. A damaged one is set aside.

    Looks for damage in the pages; with ``thorough`` in everything.

    Raises SettingError if ``path`` cannot be a file or is a file of another program, and
    MonitorError for a problem of the disk or of permissions.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(DamagedFileError):
            return _open(path, max_bytes, thorough)
        # Several processes may share the spool: only the first sets it aside.
        with _directory_lock(path.parent):
            with contextlib.suppress(DamagedFileError):
                return _open(path, max_bytes, thorough)
            _set_aside(path)
            return _open(path, max_bytes, thorough)
    except ForeignFileError:
        raise SettingError(_KEY, f"{path} is another program's database") from None
    except DamagedFileError as damage:
        raise MonitorError(f"cannot use the spool {path}: {damage}; check its disk") from None
    except OSError as error:
        if error.errno in _WRONG_PATH:
            raise SettingError(_KEY, f"cannot use {path}: {error.strerror}") from None
        raise MonitorError(_advice(path, str(error.strerror))) from None
    except sqlite3.Error as error:
        if path.is_dir():
            raise SettingError(_KEY, f"cannot use {path}: Is a directory") from None
        raise MonitorError(_advice(path, str(error))) from None


def _open(path: Path, max_bytes: int, thorough: bool) -> SpoolFile:
    try:
        own_file.create(path)
        file = SpoolFile(path, max_bytes=max_bytes)
        try:
            if thorough:
                file.check_all()
            else:
                file.check()
        except BaseException:
            file.close()
            raise
    except (sqlite3.Error, UnicodeDecodeError) as error:
        if own_file.is_damage(error, path):
            raise DamagedFileError(str(error)) from None
        raise
    return file


def _set_aside(path: Path) -> None:
    """Rename a damaged spool and its log; raise SettingError for a file of another program."""
    if not own_file.has_header(path) and path != BusSettings().path():
        raise SettingError(_KEY, f"{path} is not a spool; choose another file")
    size = path.stat().st_size
    aside = own_file.set_aside(path, keep=_KEPT_ASIDE)
    logger.warning(
        "spool: %s is damaged: set aside as %s (%d bytes), starting a new one", path, aside, size
    )


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
