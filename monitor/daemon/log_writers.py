"""Where the lines of the daemon's log go, and the threads that write them there."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

__all__ = ["STOP_S", "RotatingFile", "Stderr", "Writer"]

_QUEUE_RECORDS = 10_000
_RETRY_S = 5.0
# How long to wait for a writer to write queued records.
STOP_S = 2.0


class RotatingFile(logging.handlers.RotatingFileHandler):
    """A file rotated by size; reopened if it was moved or deleted, such as by logrotate."""

    def __init__(
        self, file: str, *, max_bytes: int, rotations: int, say: Callable[[str], None]
    ) -> None:
        self._say = say
        self._broken_until = 0.0
        self._looked_at = 0.0
        super().__init__(
            file,
            maxBytes=max_bytes,
            backupCount=rotations,
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
        """Write the record, and rotate or open the file where that is due."""
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
            # Closing flushes, and fails again on a full disk, which was reported before.
            with contextlib.suppress(OSError):
                stream.close()


class Stderr(logging.StreamHandler[TextIO]):
    """Lines to stderr; one that is closed or full is nobody's problem but its reader's."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        """Do nothing: there is no place left to complain."""
        del record


class Writer:
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
        self._left_behind = not switched.wait(STOP_S)
        return not self._left_behind

    def reopen(self) -> None:
        """Have the handler open its file again, if it has one."""

        def reopen() -> None:
            if isinstance(self._handler, RotatingFile):
                self._handler.reopen()

        self.put(reopen)

    def stop(self, limit_s: float) -> bool:
        """Write what is queued and stop; return False if that hangs."""
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
        if self._left_behind:
            self._handler.close()
