"""Opens the spool's file, also where it was deleted, and says what to do where that fails.

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
from monitor.bus.spool_file import SpoolFile
from monitor.errors import MonitorError, SettingError
from monitor.sqlite import own_file
from monitor.sqlite.file import Connections
from monitor.sqlite.own_file import DamagedFileError, ForeignFileError

__all__ = ["open_spool", "replace_if_damaged"]

logger = logging.getLogger("monitor.bus")

_KEY = ("bus", "file")
# Damaged spools that stay, to be looked at.
_KEEP_ASIDE = 3
# Paths that no waiting makes right.
_WRONG_PATH = {errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}


def open_spool(
    path: Path, *, max_bytes: int, shared: Connections | None = None, thorough: bool = False
) -> SpoolFile:
    """Open the spool, or create it; blocks. ``shared`` as in :class:`SpoolFile`.

    A damaged one is set aside; ``thorough`` looks for that in all of it. Raises
    SettingError where ``path`` is no place for a spool or another program's file, and
    MonitorError where the disk or a permission is in the way.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(DamagedFileError):
            return _open(path, max_bytes, shared, thorough)
        # Several processes may share the spool: only the first sets it aside.
        with _directory_lock(path.parent):
            with contextlib.suppress(DamagedFileError):
                return _open(path, max_bytes, shared, thorough)
            _set_aside(path)
            return _open(path, max_bytes, shared, thorough)
    except ForeignFileError:
        raise SettingError(_KEY, f"{path} is another program's database") from None
    except DamagedFileError as damage:
        raise MonitorError(f"cannot use the spool {path}: {damage}; look at its disk") from None
    except OSError as error:
        if error.errno in _WRONG_PATH:
            raise SettingError(_KEY, f"cannot use {path}: {error.strerror}") from None
        raise MonitorError(_advice(path, str(error.strerror))) from None
    except sqlite3.Error as error:
        if path.is_dir():
            raise SettingError(_KEY, f"cannot use {path}: Is a directory") from None
        raise MonitorError(_advice(path, str(error))) from None


def replace_if_damaged(
    path: Path, error: Exception, *, max_bytes: int, shared: Connections | None = None
) -> None:
    """Set the spool aside and begin a new one, if ``error`` comes from damage to the file.

    For a spool that is in use. Logs what it does, and raises nothing: whoever got the error tries
    again anyway.
    """
    if not own_file.is_damage(error, path):
        return
    try:
        open_spool(path, max_bytes=max_bytes, shared=shared, thorough=True).close()
    except (MonitorError, sqlite3.Error) as problem:
        logger.debug("spool: cannot replace %s: %s", path, problem)


def _open(path: Path, max_bytes: int, shared: Connections | None, thorough: bool) -> SpoolFile:
    try:
        own_file.create(path)
        file = SpoolFile(path, max_bytes=max_bytes, shared=shared)
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
    """Move a damaged spool out of the way; refuse what may be somebody else's."""
    if not own_file.has_header(path) and path != BusSettings().path():
        raise SettingError(_KEY, f"{path} is not a spool of this daemon; name another")
    size = path.stat().st_size
    aside = own_file.set_aside(path, keep=_KEEP_ASIDE)
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
        remedy = "make room on its disk, and look whether the disk fails"
    elif "locked" in problem:
        remedy = "another process holds it; end that one"
    else:
        remedy = f"let the daemon write in {path.parent}"
    return f"cannot use the spool {path}: {problem}; {remedy}"
