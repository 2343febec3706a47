"""Opens the file of the spool, or raises an error that says what to do.

A wrong path in the config ends the daemon with status 78, and systemd does not restart it. A full
or failing disk ends it with status 1, and systemd restarts it. A damaged spool is set aside.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import sqlite3
from pathlib import Path

from monitor.bus.settings import BusSettings
from monitor.bus.spool_file import SpoolFile
from monitor.errors import MonitorError, SettingError
from monitor.files.owner import owner_remark
from monitor.sqlite import own_file
from monitor.sqlite.own_file import DamagedFileError, ForeignFileError

__all__ = ["open_spool", "set_aside_if_damaged"]

logger = logging.getLogger("monitor.bus")

_KEY = ("bus", "file")
# Errors of a wrong path, which do not go away by themselves.
_WRONG_PATH = {errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}


def open_spool(path: Path, *, max_bytes: int) -> SpoolFile:
    """Open the spool, or create it; blocks. One with damaged pages is set aside.

    Raises SettingError if ``path`` cannot be a file or is a file of another program, and
    MonitorError for a problem of the disk or of permissions.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(DamagedFileError):
            return _open(path, max_bytes)
        if not own_file.has_header(path) and path != BusSettings().path():
            raise SettingError(_KEY, f"{path} is not a spool; choose another file")
        _set_aside(path)
        return _open(path, max_bytes)
    except ForeignFileError:
        raise SettingError(_KEY, f"{path} is another program's database") from None
    except DamagedFileError as damage:
        raise MonitorError(f"cannot use the spool {path}: {damage}; check its disk") from None
    except OSError as error:
        if error.errno in _WRONG_PATH:
            raise SettingError(
                _KEY, f"cannot use {path}: {error.strerror}{owner_remark(path)}"
            ) from None
        raise MonitorError(
            f"cannot use the spool {path}: {error.strerror}{owner_remark(path)};"
            " check its disk and permissions"
        ) from None
    except sqlite3.Error as error:
        if path.is_dir():
            raise SettingError(_KEY, f"cannot use {path}: Is a directory") from None
        raise MonitorError(
            f"cannot use the spool {path}: {error}{owner_remark(path)};"
            " check its disk and permissions"
        ) from None


def _open(path: Path, max_bytes: int) -> SpoolFile:
    try:
        own_file.create(path)
        file = SpoolFile(path, max_bytes=max_bytes)
        try:
            file.check()
        except BaseException:
            file.close()
            raise
    except (sqlite3.Error, UnicodeDecodeError) as error:
        if own_file.is_damage(error):
            raise DamagedFileError(str(error)) from None
        raise
    return file


def _set_aside(path: Path) -> None:
    aside = own_file.set_aside(path)
    logger.warning("spool: %s is damaged: set aside as %s, starting a new one", path, aside)


def set_aside_if_damaged(file: SpoolFile, error: Exception) -> None:
    """Rename the spool if it is damaged; its daemons end and start again with a new one."""
    path = file.opened.path
    if own_file.is_damage(error) and not file.opened.lost():
        # Another thread may have just done it.
        with contextlib.suppress(OSError):
            _set_aside(path)
