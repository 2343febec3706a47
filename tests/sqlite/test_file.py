"""SQLite files that are deleted, moved and replaced while they are open."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from monitor.sqlite.file import Connections, FileLostError, Held, OpenFiles, create
from tests.waiting import wait_for

logger = logging.getLogger("test")


def connect(path: Path) -> Callable[[bool], sqlite3.Connection]:
    def made(first: bool) -> sqlite3.Connection:
        raw = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        if first:
            raw.execute("PRAGMA journal_mode=WAL")
            raw.execute("CREATE TABLE IF NOT EXISTS number (n INTEGER)")
        return raw

    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    directory = tmp_path / "state"
    directory.mkdir()
    return directory / "some.db"


def put(held: Held, number: int) -> None:
    with held as raw:
        raw.execute("INSERT INTO number VALUES (?)", (number,))


def stored(path: Path) -> list[int]:
    """Return what another process would find."""
    raw = sqlite3.connect(path)
    try:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [n for (n,) in raw.execute("SELECT n FROM number ORDER BY n")]
    finally:
        raw.close()


def delete(path: Path, *suffixes: str) -> None:
    for suffix in suffixes or ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink()


def replace(path: Path) -> None:
    """Put a copy in a file's place, as a backup is put back."""
    shutil.copy(path, f"{path}.copy")
    Path(f"{path}.copy").replace(path)


LOSSES: dict[str, Callable[[Path], object]] = {
    "all deleted": delete,
    "database deleted": lambda path: delete(path, ""),
    "log deleted": lambda path: delete(path, "-wal"),
    "index deleted": lambda path: delete(path, "-shm"),
    "moved": lambda path: path.rename(path.with_name("moved.db")),
    "directory moved": lambda path: path.parent.rename(path.parent.with_name("moved")),
    "replaced": replace,
    "log replaced": lambda path: replace(Path(f"{path}-wal")),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_written_into_a_lost_file_is_not_taken_for_written(path: Path, loss: str) -> None:
    shared = Connections(path, logger)
    one, other = shared.open(connect(path)), shared.open(connect(path))
    put(one, 1)
    with (
        pytest.raises(FileLostError, match=r"some\.db(-wal|-shm)? was deleted or replaced"),
        one as raw,
    ):
        raw.execute("INSERT INTO number VALUES (2)")
        LOSSES[loss](path)
    for held in (one, other):
        assert not held.usable()
        with pytest.raises(FileLostError), held:
            raise AssertionError("nobody gets here")
    for held in (one, other):
        held.close()


@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_opened_next_is_what_is_there_then(
    path: Path, caplog: pytest.LogCaptureFixture, loss: str
) -> None:
    shared = Connections(path, logger)
    one, other = shared.open(connect(path)), shared.open(connect(path))
    put(one, 1)
    LOSSES[loss](path)
    path.parent.mkdir(exist_ok=True)
    again = shared.open(connect(path))
    put(again, 2)
    assert again.usable()
    # Who comes later, with a connection to the lost file, changes nothing any more.
    for held in (one, other):
        assert not held.usable()
        held.close()
    assert again.usable()
    # Of the replacing copy all is in the log, which did not belong to it.
    kept = loss.startswith(("log", "index"))
    assert stored(path) == ([1, 2] if kept else [2])
    again.close()
    assert stored(path) == ([1, 2] if kept else [2])
    moved = {
        "moved": path.with_name("moved.db"),
        "directory moved": path.parent.with_name("moved") / path.name,
    }
    if loss in moved:
        assert stored(moved[loss]) == [1]
    (line,) = caplog.messages
    assert f"{path}" in line
    assert "was deleted or replaced while in use: " in line
    assert ("written whole" in line) == kept


def test_a_backup_that_takes_the_place_is_not_mixed_with_the_log_of_what_was_there(
    path: Path,
) -> None:
    shared = Connections(path, logger)
    one = shared.open(connect(path))
    for number in range(1000):
        put(one, number)
    with one as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    backup = shutil.copy(path, path.with_name("backup.db"))
    for number in range(1000, 2000):
        put(one, number)
    Path(backup).replace(path)
    again = shared.open(connect(path))
    put(again, 5000)
    assert stored(path) == [*range(1000), 5000]
    again.close()
    one.close()


def test_a_log_that_another_process_keeps_from_being_copied_is_left_for_a_look(path: Path) -> None:
    shared = Connections(path, logger)
    one = shared.open(connect(path))
    put(one, 1)
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM number").fetchall()
    put(one, 2)
    path.rename(path.with_name("moved.db"))
    again = shared.open(connect(path))
    put(again, 3)
    assert stored(path) == [3]
    left = Path(f"{path}-wal.left")
    assert left.stat().st_size
    reader.close()
    again.close()
    one.close()
    left.rename(path.with_name("moved.db-wal"))
    assert stored(path.with_name("moved.db")) == [1, 2]


def test_a_deleted_log_that_another_process_keeps_from_being_copied_is_waited_for(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shared = Connections(path, logger)
    one = shared.open(connect(path))
    put(one, 1)
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM number").fetchall()
    put(one, 2)
    delete(path, "-wal")
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError, match="cannot be copied now"):
            shared.open(connect(path))
    reader.close()
    again = shared.open(connect(path))
    put(again, 3)
    assert stored(path) == [1, 2, 3]
    one.close()
    again.close()
    assert len(caplog.messages) == 1


def test_one_that_is_busy_with_a_lost_file_is_stopped(path: Path) -> None:
    shared = Connections(path, logger)
    one, busy = shared.open(connect(path)), shared.open(connect(path))
    put(one, 1)
    begun, ended = threading.Event(), threading.Event()

    def count() -> None:
        endless = (
            "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT sum(n) FROM c"
        )
        with pytest.raises(sqlite3.OperationalError, match="interrupted"), busy as raw:
            begun.set()
            raw.execute(endless).fetchall()
        ended.set()

    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    assert begun.wait(20)
    delete(path)
    again = shared.open(connect(path))
    assert ended.wait(20)
    thread.join(20)
    put(again, 2)
    assert stored(path) == [2]
    again.close()


def test_a_file_replaced_while_it_is_being_opened_is_noticed(path: Path) -> None:
    shared = Connections(path, logger)

    def replaced(first: bool) -> sqlite3.Connection:
        raw = connect(path)(first)
        replace(path)
        return raw

    with pytest.raises(FileLostError):
        shared.open(replaced)
    delete(path, "")
    again = shared.open(connect(path))
    put(again, 1)
    again.close()
    assert stored(path) == [1]


def test_what_is_closed_in_order_leaves_no_trace(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shared = Connections(path, logger)
    for number in range(3):
        one, other = shared.open(connect(path)), shared.open(connect(path))
        put(one, number)
        one.close()
        assert other.usable()
        other.close()
        other.close()
        assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert stored(path) == [0, 1, 2]
    assert not caplog.messages


def test_a_link_that_leads_elsewhere_is_another_file(path: Path) -> None:
    for name in ("first", "second"):
        path.with_name(name).mkdir()
    link = path.with_name("link")
    link.symlink_to("first")
    shared = Connections(link / "some.db", logger)
    held = shared.open(connect(shared.path))
    link.unlink()
    link.symlink_to("second")
    wait_for(lambda: not held.usable(), "seen")
    again = shared.open(connect(shared.path))
    put(again, 7)
    again.close()
    assert stored(path.with_name("second") / "some.db") == [7]


def test_a_file_without_a_log_is_watched_alone(path: Path) -> None:
    created = create(path)
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("CREATE TABLE number (n INTEGER)")
    files = OpenFiles(path, raw, created)
    files.check()
    raw.close()
    path.unlink()
    with pytest.raises(FileLostError):
        files.check()
