"""Threads that each own a connection, with an asynchronous interface.

A :class:`Session` is the connection of one thread. :class:`Threads` runs functions with it, limits
how long a caller waits, and interrupts functions that take too long.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from monitor.errors import UnavailableError

__all__ = ["Session", "Threads", "TimedOutError"]

logger = logging.getLogger("monitor.store")

T = TypeVar("T")
S = TypeVar("S", bound="Session")

_BACKLOG = 1000  # most functions that wait; with more, the database does not keep up
_GRACE_S = 5.0  # for an interrupted function to end
_CLOSE_S = 0.45  # twice in close(): the daemon's shutdown allows 1 s for it
# After a failed connect. Until then, functions fail with its error, or wait for a connection that
# another thread has.
_RECONNECT_PAUSE_S = 0.5


class TimedOutError(UnavailableError):
    """A function did not end in its time: the database is busy, or does not answer."""


class Session(ABC):
    """One connection; only :meth:`interrupt` may be called outside its thread."""

    interrupted = False
    """Whether :meth:`interrupt` ended the running function."""

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
                self.session.interrupted = True
                self.session.interrupt()

    def fail(self, error: BaseException) -> None:
        """Raise ``error`` where the result is awaited, if the function has not begun."""
        if self.future.set_running_or_notify_cancel():
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self.future.set_exception(error)


class Threads(Generic[S]):
    """Up to ``count`` threads, started when needed, each with a session from ``connect``.

    ``connect`` runs in the thread and raises MonitorError. A thread takes a function only when it
    has a session: if the server has no connection left for one, the others do the work. ``server``
    is the name of the database in errors.
    """

    def __init__(self, name: str, server: str, connect: Callable[[], S], *, count: int = 1) -> None:
        self._name = name
        self._server = server
        self._connect = connect
        self._count = count
        # Guards everything below.
        self._changed = threading.Condition()
        self._queue: deque[_Job[S]] = deque()
        self._threads: list[threading.Thread] = []
        self._ended: list[concurrent.futures.Future[None]] = []
        self._running: set[_Job[S]] = set()
        self._idle = 0
        self._connected = 0
        self._generation = 0
        self._closed = False
        self._refused: tuple[float, Exception] | None = None

    async def run(self, function: Callable[[S], T], *, timeout: float) -> T:
        """Run ``function`` with a session in one of the threads.

        Raises TimedOutError after ``timeout`` s, and UnavailableError if too many functions wait,
        or after close(). If the caller is cancelled, a function that has already started continues.
        """
        job = _Job(function, time.monotonic() + timeout)
        with self._changed:
            if self._closed:
                raise UnavailableError(self._server, "closed")
            if len(self._queue) >= _BACKLOG:
                raise UnavailableError(self._server, f"{_BACKLOG} transactions are already waiting")
            self._queue.append(job)
            self._grow()
            if self._refused is None:
                self._changed.notify()
            else:
                # One that pauses before it connects again must not be the only one to know.
                self._changed.notify_all()
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
                with self._changed, contextlib.suppress(ValueError):
                    self._queue.remove(job)
                what = "still busy after" if self._connected else "no connection within"
                raise TimedOutError(self._server, f"{what} {timeout:g} s")
            job.interrupt()
            await asyncio.wait({waiter}, timeout=_GRACE_S)
            if not waiter.done():
                raise TimedOutError(self._server, f"no answer in {timeout:g} s")
        result: T = waiter.result()
        return result

    def renew(self) -> None:
        """Make every thread open a new session before its next function."""
        with self._changed:
            self._generation += 1

    def busy(self) -> list[S]:
        """Return the sessions of the functions that run."""
        with self._changed:
            return [job.session for job in self._running if job.session is not None]

    def interrupt(self) -> None:
        """Make the functions that run fail soon, and every thread open a new session."""
        self.renew()
        with self._changed:
            running = list(self._running)
        for job in running:
            job.interrupt()

    async def close(self) -> None:
        """Wait half a second for running functions, interrupt the rest, end the threads."""
        with self._changed:
            self._closed = True
            ended = [asyncio.wrap_future(future) for future in self._ended]
            self._changed.notify_all()
        if not ended:
            return
        _, pending = await asyncio.wait(ended, timeout=_CLOSE_S)
        if pending:
            with self._changed:
                waiting = list(self._queue)
                self._queue.clear()
                self._changed.notify_all()
            for job in waiting:
                job.fail(UnavailableError(self._server, "closed"))
            self.interrupt()
            _, pending = await asyncio.wait(pending, timeout=_CLOSE_S)
        if pending:
            logger.error("%s: %d threads did not stop", self._server, len(pending))

    def _grow(self) -> None:
        if len(self._threads) >= self._count or self._idle >= len(self._queue):
            return
        ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        name = f"{self._name}-{len(self._threads) + 1}"
        thread = threading.Thread(target=self._serve, args=(ended,), name=name, daemon=True)
        self._threads.append(thread)
        self._ended.append(ended)
        thread.start()

    def _serve(self, ended: concurrent.futures.Future[None]) -> None:
        session: S | None = None
        generation = 0
        try:
            while self._wait(session is not None):
                if session is not None and not (
                    generation == self._generation and session.usable()
                ):
                    self._give_up(session)
                    session = None
                if session is None:
                    generation = self._generation
                    session = self._open()
                    if session is None:
                        continue
                job = self._next()
                if job is not None:
                    self._run(job, session)
                    if not session.usable():
                        self._give_up(session)
                        session = None
                    # It refers to what its caller may have given up.
                    del job
        finally:
            if session is not None:
                self._give_up(session)
            # The loop may be closed if a thread ends after close() stopped waiting for it.
            with contextlib.suppress(RuntimeError):
                ended.set_result(None)

    def _wait(self, connected: bool) -> bool:
        """Wait until this thread has something to do; False to end."""
        with self._changed:
            self._idle += 1
            try:
                while True:
                    if self._queue:
                        pause = 0.0 if connected else self._pause()
                        if pause <= 0 or not self._connected:
                            return True
                        if self._closed:
                            return False
                        self._changed.wait(pause)
                    elif self._closed:
                        return False
                    else:
                        self._changed.wait()
            finally:
                self._idle -= 1

    def _pause(self) -> float:
        """Return for how many s no thread connects, after a failure."""
        if self._refused is None:
            return 0.0
        return self._refused[0] + _RECONNECT_PAUSE_S - time.monotonic()

    def _open(self) -> S | None:
        """Connect; if that fails and no thread has a connection, fail all waiting functions."""
        with self._changed:
            error = self._refused[1] if self._refused and self._pause() > 0 else None
            # Those with a connection do not wait for this one.
            self._changed.notify_all()
        if error is None:
            try:
                session = self._connect()
            except Exception as caught:  # noqa: BLE001 - raised where it is awaited
                error = caught
            else:
                with self._changed:
                    self._connected += 1
                    self._refused = None
                return session
        with self._changed:
            if self._refused is None or self._refused[1] is not error:
                self._refused = (time.monotonic(), error)
            if self._connected:
                self._changed.notify()
                return None
            waiting = list(self._queue)
            self._queue.clear()
        for job in waiting:
            job.fail(error.with_traceback(None))
        return None

    def _give_up(self, session: S) -> None:
        session.close()
        with self._changed:
            self._connected -= 1
            # Threads that left the waiting functions to this one.
            self._changed.notify_all()

    def _next(self) -> _Job[S] | None:
        with self._changed:
            while self._queue:
                job = self._queue.popleft()
                if job.future.set_running_or_notify_cancel():
                    self._running.add(job)
                    return job
        return None

    def _run(self, job: _Job[S], session: S) -> None:
        """Run one function and set its future."""
        try:
            session.interrupted = False
            with job.lock:
                job.session = session
            if time.monotonic() >= job.deadline:
                raise TimedOutError(self._server, "still busy")
            result = job.function(session)
        except BaseException as error:  # noqa: BLE001 - raised where it is awaited
            self._finish(job)
            with contextlib.suppress(RuntimeError):
                job.future.set_exception(error)
        else:
            self._finish(job)
            with contextlib.suppress(RuntimeError):
                job.future.set_result(result)

    def _finish(self, job: _Job[S]) -> None:
        with job.lock:
            job.session = None
        with self._changed:
            self._running.discard(job)
