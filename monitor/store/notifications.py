"""LISTEN on PostgreSQL: one connection, in its own thread, for all listeners."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import select
import threading
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import TYPE_CHECKING

import psycopg2
import psycopg2.errorcodes

from monitor.backoff import Backoff
from monitor.errors import MonitorError, UnavailableError
from monitor.log_limits import OutageLog
from monitor.store.interface import RETRY_S
from monitor.store.listeners import Listeners
from monitor.store.postgres_connecting import Connector
from monitor.store.postgres_errors import is_lost

if TYPE_CHECKING:
    from psycopg2.extensions import connection as RawConnection  # noqa: N812

__all__ = ["NotificationThread"]

logger = logging.getLogger("monitor.store")

_SILENCE_S = 15.0  # without data for this long, a statement tests the connection
_CLOSE_S = 0.9


class NotificationThread:
    """Listens on all channels that have listeners, and reconnects after each loss."""

    def __init__(self, connector: Connector) -> None:
        self._server = connector.server
        self._connector = connector
        self._outage = OutageLog(logger, subject=self._server)
        self._backoff = Backoff(*RETRY_S)
        self._listeners = Listeners()
        self._loop = asyncio.get_running_loop()
        self._wanted: frozenset[str] = frozenset()
        self._heard: set[str] = set()  # subscribed channels; like _listeners, used by the loop
        self._closing = threading.Event()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._serve, name="postgres-listen", daemon=True)
        self._thread.start()

    async def listen(self, channel: str) -> AsyncGenerator[str | None, None]:
        """Yield payloads as documented for :meth:`monitor.store.Store.listen`."""
        with self._listeners.listener(channel) as listener:
            if channel in self._heard:
                listener.tell(None)
            self._want()
            try:
                while True:
                    yield await listener.next()
            finally:
                # This listener is removed just after this; one extra channel costs nothing.
                self._loop.call_soon(self._want)

    def sent(self, notified: Iterable[tuple[str, str]]) -> None:
        """Pass on what this process sent, by channel, if it will not be heard.

        Such as where a server or pooler has no connection left to listen. Callable in any thread.
        """
        if self.problem is not None:
            for channel, payload in notified:
                self._call(self._listeners.tell, channel, payload)

    async def close(self) -> None:
        """End the thread, within 1 s."""
        self._closing.set()
        self._wake()
        ended, _ = await asyncio.wait({asyncio.wrap_future(self._ended)}, timeout=_CLOSE_S)
        if not ended:
            logger.error("%s: the LISTEN thread did not stop", self._server)
            return
        # Not in the thread, which may end before _wake(): the descriptors could be reused by then.
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _want(self) -> None:
        if not self._closing.is_set():
            self._wanted = self._listeners.channels()
            self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # the pipe is full: the thread wakes up anyway
            os.write(self._wake_write, b"x")

    def _hear(self, channel: str) -> None:
        self._heard.add(channel)
        self._listeners.tell(channel, None)

    def _call(self, call: Callable[..., None], *arguments: str) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: there are no listeners
            self._loop.call_soon_threadsafe(call, *arguments)

    @property
    def problem(self) -> str | None:
        """Why nothing is heard now; None if it is, or before the first attempt."""
        return self._outage.problem

    def _serve(self) -> None:
        try:
            while not self._closing.is_set():
                try:
                    raw = self._connector.connect()
                except (MonitorError, OSError) as error:
                    self._failed(error)
                else:
                    try:
                        self._relay(raw)
                    except (psycopg2.Error, OSError) as error:
                        self._failed(self._translate(error, raw))
                    except UnavailableError as error:
                        self._failed(self._connector.away(error))
                    except Exception as error:  # noqa: BLE001 - nobody else would listen
                        self._failed(UnavailableError(self._server, _shown(error)))
                    finally:
                        self._call(self._heard.clear)
                        raw.close()
                self._closing.wait(self._backoff.next_delay())
        finally:
            self._ended.set_result(None)

    def _failed(self, error: Exception) -> None:
        problem = getattr(error, "problem", str(error))
        self._outage.failed(f"cannot listen for notifications: {problem}", cause=error)

    def _translate(self, error: psycopg2.Error | OSError, raw: RawConnection) -> Exception:
        connector = self._connector
        if isinstance(error, OSError):
            return connector.away(UnavailableError(self._server, str(error)))
        translated = connector.translate(error, raw) or error
        if isinstance(translated, MonitorError):
            if error.pgcode == psycopg2.errorcodes.READ_ONLY_SQL_TRANSACTION:
                return connector.takes_no_writes(translated)
            if is_lost(error):
                return connector.away(translated)
        return translated

    def _relay(self, raw: RawConnection) -> None:
        """Deliver notifications until the connection is lost or close() is called."""
        heard: frozenset[str] = frozenset()
        while not self._closing.is_set():
            wanted = self._wanted
            if wanted != heard:
                with self._connector.limited(raw), raw.cursor() as cursor:
                    for channel in wanted - heard:
                        cursor.execute(f'LISTEN "{channel}"')
                    for channel in heard - wanted:
                        cursor.execute(f'UNLISTEN "{channel}"')
            if wanted:
                self._outage.recovered("listening for notifications again")
                self._backoff.reset()
            for channel in wanted - heard:
                self._call(self._hear, channel)
            for channel in heard - wanted:
                self._call(self._heard.discard, channel)
            heard = wanted
            self._pass_on(raw)
            # Not select(), which does not support descriptors above 1023.
            waiting = select.poll()
            waiting.register(raw.fileno(), select.POLLIN)
            waiting.register(self._wake_read, select.POLLIN)
            readable = {descriptor for descriptor, _ in waiting.poll(_SILENCE_S * 1000)}
            if self._wake_read in readable:
                os.read(self._wake_read, 4096)
            if raw.fileno() in readable:
                raw.poll()
            if not readable:
                with self._connector.limited(raw), raw.cursor() as cursor:
                    cursor.execute("SELECT 1")
            self._pass_on(raw)

    def _pass_on(self, raw: RawConnection) -> None:
        while raw.notifies:
            notify = raw.notifies.pop(0)
            self._call(self._listeners.tell, notify.channel, notify.payload)


def _shown(error: Exception) -> str:
    """Return an error that nobody foresaw in one short line, such as for text that is not UTF-8."""
    return ascii(f"{type(error).__name__}: {error}")[1:200]
