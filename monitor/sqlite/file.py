"""Notices that an SQLite file was deleted, moved or replaced while it was open.

SQLite goes on with what it has opened, also where its path leads elsewhere by now: commits
succeed, and are gone with the process (https://sqlite.org/howtocorrupt.html, 2.4). So what a
connection has open is compared with what is there before it is used, and once more after each
commit, before anybody is told of it: a few microseconds.

All connections of a process to such a file have to be closed before one is opened to what is
there now. They share its log and its index by name, and locks of the same process do not keep
them apart.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

__all__ = ["Connections", "FileLostError", "Held", "OpenFiles", "create"]

_Identity = tuple[int, int] | None
_LOG, _INDEX = "-wal", "-shm"
# How long a busy connection is asked to stop before it is asked again.
_ASK_AGAIN_S: Final = 0.02
# How long other processes may keep the log of a lost file from being copied.
_COPY_MS: Final = 1000


class FileLostError(sqlite3.OperationalError):
    """The file is not any more where it was opened; ``path`` is what is missing there."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{Path(path).name} was deleted or replaced while in use")
        self.path = path


def _identity(path: str) -> _Identity:
    """Return what tells a file from any other as long as somebody has it open."""
    try:
        found = os.stat(path)  # noqa: PTH116 - some microseconds less than by a Path
    except OSError:
        return None
    return found.st_dev, found.st_ino


def create(path: Path, mode: int = 0o644) -> _Identity:
    """Create an empty file where there is none; return which one is there.

    To be called before SQLite opens it, so that :class:`OpenFiles` can tell whether what was
    opened is what is there.
    """
    # Never opened where it exists: closing it again would let go of SQLite's locks on it.
    with contextlib.suppress(OSError):  # SQLite says it better
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode))
    return _identity(str(path))


class OpenFiles:
    """Which files a connection has open: the database's own, and those beside it.

    To be made when the connection has read something, which opens all of them; ``created`` is
    what :func:`create` gave before. Raises FileLostError where that is another by now.
    """

    def __init__(
        self,
        path: Path,
        raw: sqlite3.Connection,
        created: _Identity,
        *,
        beside: Sequence[str] = (_LOG, _INDEX),
    ) -> None:
        # Where a file system lacks what WAL mode needs, SQLite goes on without, and looks itself.
        if raw.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            beside = ()
        names = [str(path), *(f"{path}{suffix}" for suffix in beside)]
        self._files = [(name, _identity(name)) for name in names]
        for name, identity in self._files:
            if identity is None:
                raise FileLostError(name)
        if self._files[0][1] != created:
            raise FileLostError(str(path))

    def lost(self) -> str | None:
        """Return the path of the first that is not there any more, or None."""
        for path, identity in self._files:
            if _identity(path) != identity:
                return path
        return None

    def check(self) -> None:
        """Raise FileLostError where one is not there any more."""
        lost = self.lost()
        if lost is not None:
            raise FileLostError(lost)

    @property
    def database_lost(self) -> bool:
        """Tell whether it is the database itself that is not there any more."""
        path, identity = self._files[0]
        return _identity(path) != identity

    @property
    def log_deleted(self) -> bool:
        """Tell whether there is no log at all any more; another one is of who came later."""
        return any(path.endswith(_LOG) and _identity(path) is None for path, _ in self._files)

    def clear(self) -> None:
        """Take away what is left beside a lost database: it belongs to no other."""
        for path, identity in self._files[1:]:
            if _identity(path) == identity:
                # A log that could not be copied may be wanted by whoever has moved the file.
                if path.endswith(_LOG) and Path(path).stat().st_size:
                    Path(path).replace(f"{path}.left")
                else:
                    Path(path).unlink()


class Held:
    """One connection of several; ``with`` it, nobody closes it meanwhile.

    Entering and leaving raise FileLostError where the file is lost, so that what was committed
    in between is not in vain when nothing is raised.
    """

    def __init__(self, connections: Connections, raw: sqlite3.Connection, files: OpenFiles) -> None:
        self._connections = connections
        self._raw = raw
        self._files = files
        self._lock = threading.RLock()
        self._closed = False

    def __enter__(self) -> sqlite3.Connection:
        self._lock.acquire()
        try:
            if self._closed:
                raise FileLostError(str(self._connections.path))
            self._files.check()
        except BaseException:
            self._lock.release()
            raise
        return self._raw

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._files.check()
        finally:
            self._lock.release()

    def usable(self) -> bool:
        """Tell whether the connection is open, to what is there."""
        return not self._closed and self._files.lost() is None

    def interrupt(self) -> None:
        """Make what runs fail soon; from another thread."""
        with contextlib.suppress(sqlite3.ProgrammingError):  # closed meanwhile
            self._raw.interrupt()

    def close(self) -> None:
        """Close it; where the file is lost, all connections to it."""
        self._connections.close(self)

    def seize(self) -> None:
        """Keep others from using it, as soon as they have stopped."""
        while not self._lock.acquire(timeout=_ASK_AGAIN_S):
            self.interrupt()

    def free(self) -> None:
        """Let others use again what was seized."""
        self._lock.release()

    def copy_log(self) -> bool:
        """Copy all of the log into the file and empty it; return whether that could be done."""
        with contextlib.suppress(sqlite3.Error):
            self._raw.execute(f"PRAGMA busy_timeout={_COPY_MS}")
            ((busy, _, _),) = self._raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return not busy
        return False

    def finish(self) -> None:
        """Close what was seized."""
        self._closed = True
        with contextlib.suppress(sqlite3.Error):
            self._raw.close()
        self.free()


class Connections:
    """All connections of this process to one SQLite file in WAL mode. For any thread."""

    def __init__(self, path: Path, logger: logging.Logger) -> None:
        self.path = path
        self._logger = logger
        self._lock = threading.Lock()
        self._held: set[Held] = set()
        self._files: OpenFiles | None = None
        self._said: OpenFiles | None = None

    def open(self, connect: Callable[[bool], sqlite3.Connection]) -> Held:
        """Open one more, to what is there now.

        ``connect`` is told whether it is the first to this file, which may have been made only
        now. Raises what it raises, sqlite3.Error and with it FileLostError.
        """
        with self._lock:
            files = self._files
            if files is not None and files.lost() is not None and not self._let_go(files):
                raise sqlite3.OperationalError("its log was deleted, and cannot be copied now")
            created = create(self.path)
            raw = connect(self._files is None)
            try:
                # Only now has it opened what there is beside the database.
                raw.execute("PRAGMA schema_version").fetchall()
                files = self._files or OpenFiles(self.path, raw, created)
                files.check()
            except BaseException:
                raw.close()
                raise
            self._files = files
            held = Held(self, raw, files)
            self._held.add(held)
            return held

    def close(self, held: Held) -> None:
        """Close one; where the file is lost, all."""
        with self._lock:
            if held not in self._held:
                return
            if self._files is not None and self._files.lost() is not None:
                self._let_go(self._files, whatever=True)
                return
            held.seize()
            held.finish()
            self._held.discard(held)
            if not self._held:
                self._files = None

    def _let_go(self, files: OpenFiles, *, whatever: bool = False) -> bool:
        """Close all connections to a file that is lost, and say so; return whether they are.

        They stay where the database is still there, nothing else has what was written last, and
        it cannot be copied now: then once more, later.
        """
        self._say(files)
        held = list(self._held)
        for each in held:
            each.seize()
        # Into the database, wherever it is now. Never where others may have opened a log or an
        # index of their own: what keeps the two apart is in the index.
        copied = True
        if held and (files.database_lost or files.log_deleted):
            copied = held[0].copy_log()
        if not copied and not files.database_lost and not whatever:
            for each in held:
                each.free()
            return False
        for each in held:
            each.finish()
        self._held.clear()
        self._files = None
        if files.database_lost:
            try:
                files.clear()
            except OSError as error:
                self._logger.warning("cannot take away %s: %s", error.filename, error.strerror)
        return True

    def _say(self, files: OpenFiles) -> None:
        if self._said is files:
            return
        self._said = files
        if not files.database_lost:
            fate = "the database is written whole, and opened anew"
        elif _identity(str(self.path)) is not None:
            fate = "what it held is gone, and the one that is there now is used"
        else:
            fate = "what it held is gone"
        self._logger.error("%s was deleted or replaced while in use: %s", files.lost(), fate)
