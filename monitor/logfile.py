"""The daemon's own log: a rotating file and stderr, each written by a thread of its own.

Loggers never wait for a disk: records go through a bounded queue to the thread that writes them,
and neither the file nor stderr waits for the other. What a queue can't take is counted. A log that
can't be written (full disk, missing directory) is said once on stderr and tried again; the daemon
goes on.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TextIO

import msgspec

from monitor.errors import SettingError
from monitor.settings import Section

__all__ = ["DaemonLog", "LoggerSettings", "RateLimitedLog"]

FORMAT = "[%(asctime)s] [%(name)s] [%(levelname)s] %(message)s"
_QUEUE_RECORDS = 10_000
_RETRY_S = 5.0
# For a writer to write what is queued, before it is left behind.
_STOP_S = 2.0

# What other programs and older configs call the levels.
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
    """The daemon's own log, with the keys that it always had; the journal has it too."""

    # rotated by size, group-readable
    file: str = "/var/log/recodex/monitor.log"
    # debug, info, warning, error or critical
    level: str = "info"
    # Past this many bytes the file is rotated; 0 never rotates.
    max_size: Annotated[int, msgspec.Meta(ge=0, le=2**40)] = msgspec.field(
        name="max-size", default=1048576
    )
    # Rotated files kept beside it; 0 never rotates.
    rotations: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 3

    def verify(self) -> None:
        """Check the level."""
        if self.level.lower() not in LEVELS:
            raise SettingError(
                ("level",), f"expected debug, info, warning, error or critical, not {self.level!r}"
            )

    @property
    def level_number(self) -> int:
        """The level as the logging module counts it."""
        return LEVELS[self.level.lower()]


class _OneLine(logging.Formatter):
    """The message on one line; an exception as its type and text, at DEBUG with its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            text += f": {type(error).__name__}: {error}"
        # A peer that sends a line break must not be able to write log lines of its own.
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
        if record.exc_info and logging.getLogger("monitor").level == logging.DEBUG:
            text += "\n" + self.formatException(record.exc_info)
        return text


class _Journal(logging.Formatter):
    """Lines for the journal: it has time and unit already, and reads the priority in front."""

    _PRIORITY = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))

    def format(self, record: logging.LogRecord) -> str:
        priority = next((p for level, p in self._PRIORITY if record.levelno >= level), 7)
        return f"<{priority}>[{record.name}] {record.getMessage()}"


class _RotatingFile(logging.handlers.RotatingFileHandler):
    """A file rotated by size that is opened anew when logrotate (or anyone) took it away."""

    def __init__(self, settings: LoggerSettings, say: Callable[[str], None]) -> None:
        self._say = say
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
        # Readable by the group, and by nobody else, whatever the umask says.
        # A pipe that nobody reads is an error, and not a place to wait.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(self.baseFilename, flags, 0o640)
        os.set_blocking(descriptor, True)
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
                self._say(f"{self.baseFilename} can be written again")
        except OSError as error:
            if not self._broken_until:
                self._say(
                    f"cannot write {self.baseFilename}: {error.strerror}; going on without it"
                )
            self._broken_until = now + _RETRY_S
            self._drop_stream()

    def reopen(self) -> None:
        """Open the file again with the next line."""
        self._broken_until = 0.0
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
            # Closing flushes what a full disk could not take; it is said already.
            with contextlib.suppress(OSError):
                stream.close()


class _Stderr(logging.StreamHandler[TextIO]):
    """Lines to stderr; one that is closed or full is nobody's problem but its reader's."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        del record


class _Writer:
    """A thread that writes what is queued with a handler, and may hang in it."""

    def __init__(self, handler: logging.Handler) -> None:
        self._handler = handler
        self._queue: queue.Queue[logging.LogRecord | Callable[[], None] | None]
        self._queue = queue.Queue(_QUEUE_RECORDS)
        self._left_behind = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def put(self, record: logging.LogRecord | Callable[[], None]) -> None:
        """Queue a record, or a call to be made in the thread; never wait."""
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1

    def switch(self, handler: logging.Handler) -> bool:
        """Write with another handler from now on; False where the one before hangs."""
        switched = threading.Event()

        def switch() -> None:
            self._handler.close()
            self._handler = handler
            switched.set()

        self.put(switch)
        self._left_behind = not switched.wait(_STOP_S)
        return not self._left_behind

    def reopen(self) -> None:
        """Have the handler open its file again, if it has one."""

        def reopen() -> None:
            if isinstance(self._handler, _RotatingFile):
                self._handler.reopen()

        self.put(reopen)

    def stop(self, limit_s: float) -> bool:
        """Write what is queued, and end; False where it hangs in that."""
        until = time.monotonic() + limit_s
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=limit_s)
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            return False
        self._handler.close()
        return True

    def _write(self) -> None:
        while (item := self._queue.get()) is not None and not self._left_behind:
            if isinstance(item, logging.LogRecord):
                # Not handle(): its lock, held while this hangs, would hold the interpreter's end.
                self._handler.emit(item)
            else:
                item()


class _Enqueue(logging.handlers.QueueHandler):
    """Hands records to the writers without ever waiting for them."""

    def __init__(self, *writers: _Writer) -> None:
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
        """How many lines a writer could not take in time."""
        return sum(writer.dropped for writer in self._enqueue.writers)

    def start(self) -> None:
        """Send every logger of the process through this log."""
        console = _Stderr(self._stderr)
        # systemd sets JOURNAL_STREAM where stderr is the journal.
        journal = "JOURNAL_STREAM" in os.environ
        console.setFormatter(_Journal() if journal else logging.Formatter(FORMAT))
        self._console = _Writer(console)
        self._set_levels()
        self._file = _Writer(self._file_handler())
        self._enqueue.writers = (self._file, self._console)
        logging.getLogger().addHandler(self._enqueue)

    def reload(self, settings: LoggerSettings) -> None:
        """Adopt new settings: level, file, size and rotations."""
        self._settings = settings
        self._set_levels()
        handler = self._file_handler()
        if not self._file.switch(handler):
            self._file = _Writer(handler)
            self._enqueue.writers = (self._file, self._console)

    def reopen(self) -> None:
        """Open the file again, as for who has moved it away."""
        self._file.reopen()

    def stop(self, *, limit_s: float = _STOP_S) -> bool:
        """Write what is queued and close the file; False where that hangs."""
        logging.getLogger().removeHandler(self._enqueue)
        # stderr is the last: what is wrong with the file is said there.
        stopped = [writer.stop(limit_s / 2) for writer in self._enqueue.writers]
        return all(stopped)

    def _set_levels(self) -> None:
        # The level is the daemon's own; libraries speak up for warnings only.
        logging.getLogger().setLevel(logging.WARNING)
        logging.getLogger("monitor").setLevel(self._settings.level_number)

    def _file_handler(self) -> _RotatingFile:
        file = _RotatingFile(self._settings, self._say)
        file.setFormatter(logging.Formatter(FORMAT))
        return file

    def _say(self, text: str) -> None:
        """Say on stderr what is wrong with the file."""
        record = logging.LogRecord("monitor.log", logging.WARNING, "", 0, text, None, None)
        self._console.put(record)


class RateLimitedLog:
    """A logger for what peers do wrong: some lines a kind, then one that counts the rest.

    ``kind`` comes from a fixed set in the code, never from a peer, so that memory is bounded.
    """

    def __init__(self, logger: logging.Logger, *, lines: int = 5, period_s: float = 60.0) -> None:
        self._logger = logger
        self._lines = lines
        self._period_s = period_s
        self._kinds: dict[str, tuple[float, int]] = {}  # kind -> (period's start, lines in it)

    def warning(self, kind: str, text: str, *args: object) -> None:
        """Log a warning of this kind, unless there were too many of it in this period."""
        self.log(logging.WARNING, kind, text, *args)

    def info(self, kind: str, text: str, *args: object) -> None:
        """The same as information."""
        self.log(logging.INFO, kind, text, *args)

    def log(
        self, level: int, kind: str, text: str, *args: object, now: float | None = None
    ) -> None:
        """Log at ``level``; ``now`` in s on a clock that does not go back."""
        if not self._logger.isEnabledFor(level):
            return
        now = time.monotonic() if now is None else now
        start, count = self._kinds.get(kind, (now, 0))
        if now - start >= self._period_s:
            if count > self._lines:
                self._logger.log(
                    level, "%s: %d more in %d s", kind, count - self._lines, now - start
                )
            start, count = now, 0
        self._kinds[kind] = (start, count + 1)
        if count < self._lines:
            self._logger.log(level, text, *args)
        elif count == self._lines:
            self._logger.log(level, "%s: too many of these for a line each; counting on", kind)
