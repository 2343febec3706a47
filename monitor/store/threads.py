"""Threads that each own a connection, with an asynchronous interface.

A :class:`Session` is the connection of one thread. :class:`Threads` runs functions with it, limits
how long a caller waits, and interrupts functions that take too long.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from monitor.errors import UnavailableError

__all__ = ["Session", "Threads"]

logger = logging.getLogger("monitor.store")

T = TypeVar("T")
S = TypeVar("S", bound="Session")

_BACKLOG = 1000  # most functions that wait; with more, the database does not keep up
_GRACE_S = 5.0  # for an interrupted function to end
_CLOSE_S = 0.45  # twice in close(): the daemon's shutdown allows 1 s for it
_RECONNECT_PAUSE_S = 0.5  # after a failed connect, functions that wait fail with the same error


class Session(ABC):
    """One connection; only :meth:`interrupt` may be called outside its thread."""

    @abstractmethod
    def usable(self) -> bool:
        """Return whether the connection is still open, without a request to the server."""

    @abstractmethod
    def interrupt(self) -> None:
        """Make the running function fail soon; called from another thread."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection; never raises."""


class _Job(Generic[S]):
    def __init__(self, function: Callable[[S], Any], deadline: float) -> None:
        self.function = function
        self.deadline = deadline
        self.future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self.session: S | None = None
        self.lock = threading.Lock()

    def interrupt(self) -> None:
        with self.lock:
            if self.session is not None:
                self.session.interrupt()


class Threads(Generic[S]):
    """Up to ``count`` threads, started when needed, each with a session from ``connect``.

    ``connect`` runs in the thread and raises MonitorError. ``server`` is the name of the database
    in errors.
    """

    def __init__(self, name: str, server: str, connect: Callable[[], S], *, count: int = 1) -> None:
        self._name = name
        self._server = server
        self._connect = connect
        self._count = count
        self._queue: queue.SimpleQueue[_Job[S] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._ended: list[concurrent.futures.Future[None]] = []
        self._running: set[_Job[S]] = set()
        self._idle = 0
        self._closed = False
        self._refused: tuple[float, Exception] | None = None

    async def run(self, function: Callable[[S], T], *, timeout: float) -> T:
        """Run ``function`` with a session in one of the threads.

        Raises UnavailableError after ``timeout`` s, if too many functions wait, or after close().
        If the caller is cancelled, a function that has already started continues.
        """
        if self._closed:
            raise UnavailableError(self._server, "closed")
        if self._queue.qsize() >= _BACKLOG:
            raise UnavailableError(self._server, f"{_BACKLOG} transactions are already waiting")
        job = _Job(function, time.monotonic() + timeout)
        self._queue.put(job)
        self._grow()
        waiter = asyncio.wrap_future(job.future)
        # Retrieve the exception, or asyncio logs it if the caller was cancelled.
        waiter.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await asyncio.wait({waiter}, timeout=timeout)
        except asyncio.CancelledError:
            job.future.cancel()
            raise
        if not waiter.done():
            if job.future.cancel():
                raise UnavailableError(self._server, f"still busy after {timeout:g} s")
            job.interrupt()
            await asyncio.wait({waiter}, timeout=_GRACE_S)
            if not waiter.done():
                raise UnavailableError(self._server, f"no answer in {timeout:g} s")
        result: T = waiter.result()
        return result

    async def close(self) -> None:
        """Wait half a second for running functions, interrupt the rest, end the threads."""
        self._closed = True
        with self._lock:
            ended = [asyncio.wrap_future(future) for future in self._ended]
        for _ in ended:
            self._queue.put(None)
        if not ended:
            return
        _, pending = await asyncio.wait(ended, timeout=_CLOSE_S)
        if pending:
            with self._lock:
                running = list(self._running)
            for job in running:
                job.interrupt()
            _, pending = await asyncio.wait(pending, timeout=_CLOSE_S)
        if pending:
            logger.error("%s: %d threads did not stop", self._server, len(pending))

    def _grow(self) -> None:
        with self._lock:
            if len(self._threads) >= self._count or self._idle >= self._queue.qsize() > 0:
                return
            ended: concurrent.futures.Future[None] = concurrent.futures.Future()
            name = f"{self._name}-{len(self._threads) + 1}"
            thread = threading.Thread(target=self._serve, args=(ended,), name=name, daemon=True)
            self._threads.append(thread)
            self._ended.append(ended)
            thread.start()

    def _serve(self, ended: concurrent.futures.Future[None]) -> None:
        session: S | None = None
        try:
            while True:
                with self._lock:
                    self._idle += 1
                job = self._queue.get()
                with self._lock:
                    self._idle -= 1
                if job is None:
                    return
                if job.future.set_running_or_notify_cancel():
                    session = self._run(job, session)
        finally:
            if session is not None:
                session.close()
            # The loop may be closed if a thread ends after close() stopped waiting for it.
            with contextlib.suppress(RuntimeError):
                ended.set_result(None)

    def _run(self, job: _Job[S], session: S | None) -> S | None:
        """Run one job, set its future, and return the session for the next job."""
        try:
            if session is not None and not session.usable():
                session.close()
                session = None
            if session is None:
                session = self._open()
            with job.lock:
                job.session = session
            with self._lock:
                self._running.add(job)
            if time.monotonic() >= job.deadline:
                raise UnavailableError(self._server, "still busy")
            result = job.function(session)
        except BaseException as error:  # noqa: BLE001 - raised where it is awaited
            self._finish(job)
            with contextlib.suppress(RuntimeError):
                job.future.set_exception(error)
        else:
            self._finish(job)
            with contextlib.suppress(RuntimeError):
                job.future.set_result(result)
        return session

    def _finish(self, job: _Job[S]) -> None:
        with job.lock:
            job.session = None
        with self._lock:
            self._running.discard(job)

    def _open(self) -> S:
        refused = self._refused
        if refused is not None and time.monotonic() - refused[0] < _RECONNECT_PAUSE_S:
            raise refused[1].with_traceback(None)
        try:
            session = self._connect()
        except Exception as error:
            self._refused = (time.monotonic(), error)
            raise
        self._refused = None
        return session
