"""The daemon's own log: a rotating file and stderr, each written by its own thread.

Loggers never wait for a disk: records go through a bounded queue to the thread that writes them,
and the file and stderr do not wait for each other. Records that do not fit are counted and
dropped. If the file cannot be written (full disk, missing directory), stderr gets one message, and
the daemon continues and retries.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import queue
import sys
from typing import Annotated, TextIO

import msgspec

from monitor.daemon.log_writers import STOP_S, RotatingFile, Stderr, Writer
from monitor.errors import described
from monitor.settings import Reloadable, Section

__all__ = ["LEVELS", "DaemonLog", "LoggerSettings"]

# Longer messages are cut: looking for line breaks in a megabyte holds the loop.
_MOST_LETTERS = 10_000

FORMAT = "[%(asctime)s] [%(name)s] [%(levelname)s] %(message)s"

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
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

    @property
    def level_number(self) -> int:
        """The level as a number of the logging module."""
        return LEVELS[self.level]


class _OneLine(logging.Formatter):
    """The message in one line; an exception as type and text, at DEBUG with its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        try:
            text = record.getMessage()
        except Exception as error:  # noqa: BLE001 - of what is to be shown
            text = f"{record.msg} (cannot be shown: {type(error).__name__})"
        if record.exc_info and record.exc_info[1] is not None:
            text += f": {described(record.exc_info[1])}"
        if len(text) > _MOST_LETTERS:
            text = f"{text[:_MOST_LETTERS]}... ({len(text)} characters)"
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


class _Enqueue(logging.handlers.QueueHandler):
    """Passes records to the writing threads; never waits."""

    def __init__(self, *writers: Writer) -> None:
        super().__init__(queue.Queue(1))
        self.writers = writers

    def enqueue(self, record: logging.LogRecord) -> None:
        for writer in self.writers:
            writer.put(record)


class DaemonLog:
    """Owns the log of the process: :meth:`start`, :meth:`reload` on SIGHUP, :meth:`stop`."""

    def __init__(self, settings: LoggerSettings, *, stderr: TextIO | None = None) -> None:
        self._settings = settings
        self._stderr = stderr or sys.stderr
        self._enqueue = _Enqueue()
        self._enqueue.setFormatter(_OneLine())

    @property
    def dropped(self) -> int:
        """The number of dropped records."""
        return sum(writer.dropped for writer in self._enqueue.writers)

    def start(self) -> None:
        """Route all loggers of the process to this log."""
        console = Stderr(self._stderr)
        # systemd sets JOURNAL_STREAM if stderr is the journal.
        journal = "JOURNAL_STREAM" in os.environ
        console.setFormatter(_Journal() if journal else logging.Formatter(FORMAT))
        self._console = Writer(console)
        self._set_levels()
        self._file = Writer(self._file_handler())
        self._enqueue.writers = (self._file, self._console)
        logging.getLogger().addHandler(self._enqueue)

    def reload(self, settings: LoggerSettings) -> None:
        """Adopt new settings: level, file, size and rotations."""
        self._settings = settings
        self._set_levels()
        handler = self._file_handler()
        if not self._file.switch(handler):
            self._file = Writer(handler)
            self._enqueue.writers = (self._file, self._console)

    def reopen(self) -> None:
        """Reopen the file, which may have been moved."""
        self._file.reopen()

    def stop(self, *, limit_s: float = STOP_S) -> bool:
        """Write queued records and close the file; return False if that hangs."""
        logging.getLogger().removeHandler(self._enqueue)
        # stderr is the last: the file's problems are reported there.
        stopped = [writer.stop(limit_s / 2) for writer in self._enqueue.writers]
        return all(stopped)

    def _set_levels(self) -> None:
        # The level applies to the daemon; libraries log warnings only.
        logging.getLogger().setLevel(logging.WARNING)
        logging.getLogger("monitor").setLevel(self._settings.level_number)

    def _file_handler(self) -> RotatingFile:
        file = RotatingFile(
            self._settings.file,
            max_bytes=self._settings.max_size,
            rotations=self._settings.rotations,
            say=self._say,
        )
        file.setFormatter(logging.Formatter(FORMAT))
        return file

    def _say(self, text: str) -> None:
        """Report a problem with the file on stderr."""
        record = logging.LogRecord("monitor.log", logging.WARNING, "", 0, text, None, None)
        self._console.put(record)
