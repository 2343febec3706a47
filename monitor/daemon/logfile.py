"""The daemon's own log: a rotating file and the journal, written in a separate thread.

Loggers never wait for a disk: records go through a bounded queue to the thread that writes them.
Records that do not fit are counted and dropped. If the file cannot be written (full disk, missing
directory), stderr gets one message and the daemon continues and retries.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import queue
import sys
import time
from pathlib import Path
from typing import Annotated, Any, TextIO

import msgspec

from monitor.errors import SettingError
from monitor.settings import Reloadable, Section

__all__ = ["DaemonLog", "LoggerSettings"]

FORMAT = "[%(asctime)s] [%(name)s] [%(levelname)s] %(message)s"
_QUEUE_RECORDS = 10_000
_RETRY_S = 5.0

# Names of levels, including those of other programs and older configs.
LEVELS = {
    "debug": logging.DEBUG,
    "trace": logging.DEBUG,
    "info": logging.INFO,
    "notice": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "err": logging.ERROR,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "fatal": logging.CRITICAL,
}


class LoggerSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The daemon's own log, with the keys of version 1; it also goes to the journal."""

    # rotated by size, group-readable
    file: Reloadable[str] = "/var/log/recodex/monitor.log"
    # debug, info, warning, error or critical
    level: Reloadable[str] = "info"
    # past this many bytes the file is rotated; 0 never rotates
    max_size: Reloadable[Annotated[int, msgspec.Meta(ge=0, le=2**40)]] = msgspec.field(
        name="max-size", default=1048576
    )
    # rotated files that are kept; 0 never rotates
    rotations: Reloadable[Annotated[int, msgspec.Meta(ge=0, le=1000)]] = 3

    def verify(self) -> None:
        """Check the level."""
        if self.level.lower() not in LEVELS:
            raise SettingError(
                ("level",), f"expected debug, info, warning, error or critical, not {self.level!r}"
            )

    @property
    def level_number(self) -> int:
        """The level as a number of the logging module."""
        return LEVELS[self.level.lower()]


class _OneLine(logging.Formatter):
    """The message in one line; an exception as type and text, at DEBUG with its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            text += f": {type(error).__name__}: {error}"
        # Escape line breaks from peers, which could fake log lines.
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
        if record.exc_info and logging.getLogger("monitor").level == logging.DEBUG:
            text += "\n" + self.formatException(record.exc_info)
        return text


class _Journal(logging.Formatter):
    """Lines for the journal, which adds time and unit, and reads the priority prefix."""

    _PRIORITY = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))

    def format(self, record: logging.LogRecord) -> str:
        priority = next((p for level, p in self._PRIORITY if record.levelno >= level), 7)
        return f"<{priority}>[{record.name}] {record.getMessage()}"


class _RotatingFile(logging.handlers.RotatingFileHandler):
    """A file rotated by size; reopened if it was moved or deleted, such as by logrotate."""

    def __init__(self, settings: LoggerSettings, stderr: TextIO) -> None:
        self._stderr = stderr
        self._broken_until = 0.0
        self._looked_at = 0.0
        super().__init__(
            settings.file,
            maxBytes=settings.max_size,
            backupCount=settings.rotations,
            encoding="utf-8",
            errors="backslashreplace",
            delay=True,
        )

    def _open(self) -> Any:
        # Readable only by owner and group, whatever the umask.
        descriptor = os.open(
            self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640
        )
        return os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace")

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now < self._broken_until:
            return
        try:
            if now - self._looked_at >= 1:
                self._looked_at = now
                self._reopen_if_moved()
            if self.shouldRollover(record):
                try:
                    self.doRollover()
                except OSError as error:
                    self._say(f"cannot rotate {self.baseFilename}: {error.strerror}")
                    if self.stream is None:
                        self.stream = self._open()
            if self.stream is None:
                self.stream = self._open()
            self.stream.write(self.format(record) + self.terminator)
            self.stream.flush()
            if self._broken_until:
                self._broken_until = 0.0
                self._say(f"writing {self.baseFilename} again")
        except OSError as error:
            if not self._broken_until:
                self._say(
                    f"cannot write {self.baseFilename}: {error.strerror}; continuing without it"
                )
            self._broken_until = now + _RETRY_S
            self._drop_stream()

    def _reopen_if_moved(self) -> None:
        if self.stream is None:
            return
        try:
            there = Path(self.baseFilename).stat()
        except FileNotFoundError:
            self._drop_stream()
            return
        ours = os.fstat(self.stream.fileno())
        if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            self._drop_stream()

    def _drop_stream(self) -> None:
        stream, self.stream = self.stream, None
        if stream is not None:
            # Closing flushes, and fails again on a full disk, which was reported before.
            with contextlib.suppress(OSError):
                stream.close()

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stderr.write(f"recodex-monitor: logger: {text}\n")
            self._stderr.flush()


class _Stderr(logging.StreamHandler[TextIO]):
    """Lines to stderr; errors, such as of a closed pipe, are ignored."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        del record


class _Enqueue(logging.handlers.QueueHandler):
    """Passes records to the writing thread; never waits."""

    dropped = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1


class DaemonLog:
    """Owns the log of the process: :meth:`start`, :meth:`reload` on SIGHUP, :meth:`stop`."""

    def __init__(self, settings: LoggerSettings, *, stderr: TextIO | None = None) -> None:
        self._settings = settings
        self._stderr = stderr or sys.stderr
        self._queue: queue.Queue[logging.LogRecord] = queue.Queue(_QUEUE_RECORDS)
        self._enqueue = _Enqueue(self._queue)
        self._enqueue.setFormatter(_OneLine())
        self._listener: logging.handlers.QueueListener | None = None

    @property
    def dropped(self) -> int:
        """The number of dropped records."""
        return self._enqueue.dropped

    def start(self) -> None:
        """Route all loggers of the process to this log."""
        root = logging.getLogger()
        root.addHandler(self._enqueue)
        self._apply()

    def reload(self, settings: LoggerSettings) -> None:
        """Adopt new settings: level, file, size and rotations."""
        self._settings = settings
        self._end_listener()
        self._apply()

    def stop(self) -> None:
        """Write queued records and close the file."""
        logging.getLogger().removeHandler(self._enqueue)
        self._end_listener()

    def _apply(self) -> None:
        # The level applies to the daemon; libraries log warnings only.
        logging.getLogger().setLevel(logging.WARNING)
        logging.getLogger("monitor").setLevel(self._settings.level_number)
        file = _RotatingFile(self._settings, self._stderr)
        file.setFormatter(logging.Formatter(FORMAT))
        console = _Stderr(self._stderr)
        # systemd sets JOURNAL_STREAM if stderr is the journal.
        journal = "JOURNAL_STREAM" in os.environ
        console.setFormatter(_Journal() if journal else logging.Formatter(FORMAT))
        self._listener = logging.handlers.QueueListener(self._queue, file, console)
        self._listener.start()

    def _end_listener(self) -> None:
        listener, self._listener = self._listener, None
        if listener is None:
            return
        while True:
            # The listener puts a sentinel into the queue, which may be full.
            try:
                listener.stop()
                break
            except queue.Full:
                time.sleep(0.01)
        for handler in listener.handlers:
            handler.close()
