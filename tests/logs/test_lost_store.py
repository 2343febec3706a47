"""Uploads to the daemon while its SQLite file is deleted, moved and replaced under it."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.logs.test_daemon import LIMIT_S, ask, client, config, entry
from tests.ports import free_port
from tests.servers.daemon import DaemonProcess, StartDaemon
from tests.waiting import wait_for

pytestmark = pytest.mark.end_to_end

FILE = "monitor.db"


class Uploads:
    """Four connections that upload one entry after the other, and what was answered."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._threads = [threading.Thread(target=self._upload, args=(n,)) for n in range(4)]
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._losses = 0
        self.stored: list[tuple[int, str]] = []
        """Each entry that was answered ok, and how many losses there had been when it was sent."""
        self.refused: list[Any] = []
        for thread in self._threads:
            thread.start()

    def _upload(self, number: int) -> None:
        with client(self._port) as connection:
            for count in range(1_000_000):
                if self._stop.is_set():
                    return
                text, losses = f"{number}.{count}", self._losses
                answer = ask(connection, "uploadLogs", **entry(text))
                with self._lock:
                    if answer["status"] == "ok":
                        self.stored.append((losses, text))
                    else:
                        self.refused.append(answer["error"])

    def lost(self) -> None:
        """Note that the file was lost by now."""
        self._losses += 1

    def wait_for_more(self) -> None:
        """Wait until entries were stored that were sent after the last loss."""
        wait_for(
            lambda: sum(losses == self._losses for losses, _ in list(self.stored)) > 100,
            "uploads that are stored",
        )

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(LIMIT_S)


def delete(file: Path) -> None:
    for suffix in ("", "-shm", "-wal"):
        Path(f"{file}{suffix}").unlink(missing_ok=True)


def move(file: Path) -> None:
    """Move it aside as people do, one file after the other."""
    number = len(list(file.parent.glob("aside-*")))
    aside = file.parent / f"aside-{number}"
    aside.mkdir()
    for name in (FILE, f"{FILE}-shm", f"{FILE}-wal"):
        if (file.parent / name).exists():
            (file.parent / name).rename(aside / name)


def put_backup_back(file: Path) -> None:
    backup = file.with_name("backup")
    if not backup.exists():
        source, target = sqlite3.connect(file), sqlite3.connect(backup)
        source.backup(target)
        source.close()
        target.close()
    copy = file.with_name("copy")
    copy.write_bytes(backup.read_bytes())
    copy.replace(file)


LOSSES: dict[str, Callable[[Path], object]] = {
    "deleted": delete,
    "database deleted": Path.unlink,
    "log deleted": lambda file: Path(f"{file}-wal").unlink(),
    "moved": move,
    "replaced": put_backup_back,
}


def found(file: Path) -> set[str]:
    """Return the entries of a file, which is whole."""
    database = sqlite3.connect(file)
    try:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return {text for (text,) in database.execute("SELECT message FROM log_entry")}
    finally:
        database.close()


@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_answered_ok_is_in_the_file_that_is_there(
    start_daemon: StartDaemon, tmp_path: Path, loss: str
) -> None:
    port = free_port()
    daemon = start_daemon(config(port), debug=False).wait_ready()
    uploads = Uploads(port)
    try:
        uploads.wait_for_more()
        for _ in range(4):
            LOSSES[loss](tmp_path / FILE)
            uploads.lost()
            uploads.wait_for_more()
    finally:
        uploads.end()
    lines = [line for line in daemon.log.splitlines() if "[monitor.store]" in line]
    daemon.process.kill()
    daemon.wait()
    there = found(tmp_path / FILE)
    last = {text for losses, text in uploads.stored if losses == 4}
    assert last <= there
    answered = {text for _, text in uploads.stored}
    if loss == "log deleted":
        assert answered <= there
    elif loss == "moved":
        asides = [found(aside / FILE) for aside in tmp_path.glob("aside-*")]
        assert answered <= there.union(*asides)
    else:
        assert not answered <= there
    # Of files that go one by one the next may be missed after the daemon has begun anew.
    assert 4 <= len(lines) <= (12 if loss in ("moved", "deleted") else 4), lines
    said = rf"\[ERROR\] {tmp_path / FILE}(-wal|-shm)? was deleted or replaced while in use: "
    assert all(re.search(said, line) for line in lines), lines
    assert {error["code"] for error in uploads.refused} <= {"unavailable"}


def wait_for_status(daemon: DaemonProcess, text: str) -> None:
    wait_for(lambda: text in daemon.notices("STATUS")[-1], f"{text} in STATUS=")


def test_uploads_are_refused_while_there_is_no_place_for_them(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    port = free_port()
    state = tmp_path / "state"
    state.mkdir()
    settings = {**config(port), "database": {"file": str(state / FILE)}}
    daemon = start_daemon(settings, debug=False).wait_ready()
    with client(port) as connection:
        assert ask(connection, "uploadLogs", **entry("before"))["status"] == "ok"
        state.rename(tmp_path / "away")
        refused = ask(connection, "uploadLogs", **entry("refused"))
        assert refused["error"]["code"] == "unavailable"
        unread = ask(connection, "getLogs")["error"]
        assert unread["code"] == "unavailable"
        assert unread["message"] == f"database {state / FILE}: there is no directory {state}"
        wait_for_status(daemon, "logs degraded")
        state.mkdir()
        wait_for(
            lambda: ask(connection, "uploadLogs", **entry("after"))["status"] == "ok",
            "an upload that is stored",
        )
        wait_for_status(daemon, "logs: ")
        assert [each["message"] for each in ask(connection, "getLogs")["logs"]] == ["after"]
    daemon.process.kill()
    daemon.wait()
    assert found(state / FILE) == {"after"}
    assert found(tmp_path / "away" / FILE) == {"before"}
    lines = [line for line in daemon.log.splitlines() if "[DEBUG]" not in line]
    for text in ("[monitor.store]", "refusing uploads", "storing uploads again"):
        assert sum(text in line for line in lines) == 1, lines
