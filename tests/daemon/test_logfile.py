"""The daemon's own log survives what happens to files."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.daemon.logfile import DaemonLog, LoggerSettings
from tests.waiting import wait_for

log = logging.getLogger("monitor.test")


class Logged:
    def __init__(self, directory: Path) -> None:
        self.file = directory / "monitor.log"
        self.stderr = io.StringIO()
        self.running: list[DaemonLog] = []

    def start(self, **settings: object) -> DaemonLog:
        fields = {"file": str(self.file), **settings}
        made = DaemonLog(LoggerSettings(**fields), stderr=self.stderr)  # type: ignore[arg-type]
        made.start()
        self.running.append(made)
        return made

    def wait_line(self, text: str, *, file: Path | None = None) -> None:
        there = file or self.file
        wait_for(lambda: there.exists() and text in there.read_text(), f"{text} in {there}")


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[Logged]:
    made = Logged(tmp_path)
    levels = logging.getLogger().level, logging.getLogger("monitor").level
    yield made
    for running in made.running:
        running.stop()
    logging.getLogger().setLevel(levels[0])
    logging.getLogger("monitor").setLevel(levels[1])


def test_lines_have_the_format_of_the_old_monitor(logged: Logged) -> None:
    logged.start()
    log.info("hello %s", "world")
    logged.wait_line("hello world")
    line = logged.file.read_text()
    assert re.fullmatch(
        r"\[\d{4}-\d\d-\d\d [\d:,]+\] \[monitor\.test\] \[INFO\] hello world\n", line
    )
    assert stat.S_IMODE(logged.file.stat().st_mode) == 0o640


def test_a_message_stays_on_its_line(logged: Logged) -> None:
    logged.start()
    log.info("evil\n[2026] [x] [INFO] forged \x1b[31m")
    log.info("end")
    logged.wait_line("end")
    assert len(logged.file.read_text().splitlines()) == 2
    assert "\x1b" not in logged.file.read_text()


def test_exceptions_are_one_line_without_a_traceback(logged: Logged) -> None:
    logged.start()
    try:
        raise ValueError("what happened")
    except ValueError:
        log.exception("it failed")
    logged.wait_line("it failed: ValueError: what happened")
    assert "Traceback" not in logged.file.read_text()


class SilentError(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def test_what_has_no_text_is_named_by_its_type(
    logged: Logged, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logged.start()
    root = logging.getLogger()
    # Those of pytest cannot show it.
    ours = [each for each in root.handlers if type(each).__module__.startswith("monitor.")]
    monkeypatch.setattr(root, "handlers", ours)
    log.error("it failed", exc_info=SilentError())
    logged.wait_line("it failed: SilentError")
    log.error("it failed: %s", SilentError())
    logged.wait_line("it failed: %s (cannot be shown: ValueError)")
    assert "Traceback" not in capfd.readouterr().err


def test_it_rotates_by_size_and_keeps_so_many(logged: Logged) -> None:
    logged.start(max_size=2000, rotations=2)
    for number in range(200):
        log.info("line %d", number)
    logged.wait_line("line 199")
    files = sorted(path.name for path in logged.file.parent.iterdir())
    assert files == ["monitor.log", "monitor.log.1", "monitor.log.2"]
    assert all((logged.file.parent / name).stat().st_size <= 2000 for name in files)


def test_it_goes_on_in_a_new_file_after_logrotate(logged: Logged) -> None:
    logged.start()
    log.info("before")
    logged.wait_line("before")
    moved = logged.file.rename(logged.file.with_suffix(".old"))

    def written_anew() -> bool:
        log.info("after")
        return logged.file.exists()

    wait_for(written_anew, "a new file")
    logged.wait_line("after")
    assert "before" in moved.read_text()


def test_a_missing_directory_is_said_on_stderr_and_tried_again(
    logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.daemon.log_writers._RETRY_S", 0.05)
    logged.file = logged.file.parent / "missing" / "monitor.log"
    logged.start()
    log.info("lost")
    wait_for(lambda: "cannot write" in logged.stderr.getvalue(), "a complaint")
    assert "No such file or directory; continuing without it" in logged.stderr.getvalue()
    logged.file.parent.mkdir()

    def written() -> bool:
        log.info("found")
        return logged.file.exists()

    wait_for(written, "the log again")
    wait_for(lambda: "monitor.log again" in logged.stderr.getvalue(), "good news")
    assert logged.stderr.getvalue().count("cannot write") == 1


def test_a_full_disk_does_not_stop_anything(logged: Logged) -> None:
    logged.file = Path("/dev/full")
    logged.start()
    for _ in range(100):
        log.info("into the void")
    wait_for(lambda: "No space left on device" in logged.stderr.getvalue(), "a complaint")
    wait_for(lambda: logged.stderr.getvalue().count("into the void") == 100, "stderr to continue")
    assert logged.stderr.getvalue().count("No space left") == 1


def test_a_file_that_hangs_is_left_behind_by_a_reload(
    logged: Logged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.daemon.log_writers.STOP_S", 0.05)
    fifo, good = tmp_path / "fifo", tmp_path / "good.log"
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    logged.file = fifo
    running = logged.start()
    log.info("into the pipe")
    wait_for(lambda: "into the pipe" in logged.stderr.getvalue(), "stderr waits for no file")
    running.reload(LoggerSettings(file=str(good)))
    log.info("into the file")
    logged.wait_line("into the file", file=good)
    assert running.stop(limit_s=60)

    def has_ended() -> bool:
        # No longer held, the writer finishes what it had begun.
        with contextlib.suppress(BlockingIOError):
            os.read(reading, 65536)
        return "log" not in [thread.name for thread in threading.enumerate()]

    wait_for(has_ended, "the end of the writer that was held")
    os.close(reading)
    os.close(writing)


def test_the_journal_gets_priorities(logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    logged.start()
    log.warning("careful")
    wait_for(lambda: logged.stderr.getvalue() == "<4>[monitor.test] careful\n", "the line")


def test_levels_are_those_of_the_daemon_not_of_libraries(logged: Logged) -> None:
    logged.start(level="debug")
    logging.getLogger("library").info("chatter")
    log.debug("ours")
    logged.wait_line("ours")
    assert "chatter" not in logged.file.read_text()
