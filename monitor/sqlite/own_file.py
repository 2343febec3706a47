"""SQLite files that hold only the daemon's own data: the spool and the histories.

Such a file is readable by its group only. One of another program is refused and left alone. A
damaged one is set aside, so that the daemon starts with a new one.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Collection
from pathlib import Path

__all__ = [
    "DamagedFileError",
    "ForeignFileError",
    "check_pages",
    "create",
    "has_header",
    "is_damage",
    "recognize",
    "set_aside",
]

# What every SQLite file begins with: https://sqlite.org/fileformat.html#magic_header_string
_HEADER = b"SQLite format 3\0"
# Result codes (https://sqlite.org/rescode.html) for content that is wrong. Our statements are
# right, so an SQL error means that the schema is not ours any more.
_DAMAGE = (
    # No row that is ours breaks a rule of our schema.
    "SQLITE_CONSTRAINT",
    "SQLITE_CORRUPT",
    "SQLITE_ERROR",
    "SQLITE_FORMAT",
    "SQLITE_IOERR_SHORT_READ",
    "SQLITE_MISMATCH",
    "SQLITE_NOTADB",
)


class DamagedFileError(Exception):
    """The file is damaged; the text says how."""


class ForeignFileError(Exception):
    """The file is another program's."""


def create(path: Path) -> None:
    """Create an empty file that only its group may read, whatever the umask, if there is none."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o640))


def has_header(path: Path) -> bool:
    """Return whether this is an SQLite file, perhaps a damaged one; raises OSError."""
    with path.open("rb") as file:
        return file.read(len(_HEADER)) == _HEADER


def is_damage(error: Exception) -> bool:
    """Return whether the content of the file is wrong, not its disk, a lock or a permission."""
    if isinstance(error, UnicodeDecodeError | DamagedFileError):
        # Of a text in the schema, which the driver puts into its own error.
        return True
    if not isinstance(error, sqlite3.Error):
        return False
    # The driver's own errors have no name: a text is not UTF-8.
    name = getattr(error, "sqlite_errorname", "SQLITE_ERROR")
    return name.startswith(_DAMAGE)


def recognize(raw: sqlite3.Connection, *, application_id: int, tables: Collection[str]) -> bool:
    """Return whether the file has our tables; False for an empty one.

    Raises ForeignFileError for another program's, DamagedFileError, and sqlite3.Error.
    """
    (found,) = raw.execute("PRAGMA application_id").fetchone()
    names = {name for (name,) in raw.execute("SELECT name FROM sqlite_master")}
    if names.issuperset(tables) and found == application_id:
        return True
    if not names and found in (0, application_id):
        return False
    if found == application_id or names.issuperset(tables):
        raise DamagedFileError("its schema is wrong")
    raise ForeignFileError("it is another program's database")


def check_pages(raw: sqlite3.Connection) -> None:
    """Look through all pages, about 0.4 s for 100 MB.

    Raises DamagedFileError and sqlite3.Error.
    """
    ((problem,),) = raw.execute("PRAGMA quick_check(1)").fetchall()
    if problem != "ok":
        raise DamagedFileError(str(problem).splitlines()[-1])


def set_aside(path: Path) -> Path:
    """Rename a file, with its log, to ``NAME.corrupt``, in place of an older one; return that."""
    aside = Path(f"{path}.corrupt")
    for suffix in ("-wal", "-shm"):
        Path(f"{aside}{suffix}").unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
    return path.replace(aside)
