"""Tells a database that is busy from one that takes connections and never answers."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable

from monitor.errors import UnavailableError
from monitor.store.postgres_connecting import Connector
from monitor.store.threads import TimedOutError

__all__ = ["Silence"]


class Silence:
    """Looks, after a timeout, whether the server answers a new connection; for the loop's thread.

    ``give_up`` is called when it does not: whatever runs waits for nothing.
    """

    def __init__(self, connector: Connector, give_up: Callable[[], None]) -> None:
        self._connector = connector
        self._give_up = give_up
        self._asking = asyncio.Lock()

    async def explain(self, error: TimedOutError) -> UnavailableError:
        """Return what to raise for a timeout, marked as logged if the server is unavailable."""
        async with self._asking:
            silence = None if self._connector.is_away else await self._ask()
            if silence is not None:
                self._connector.away(silence)
                if not self._connector.answers_logins:
                    self._give_up()
        error.logged = self._connector.reported and self._connector.is_away
        return error

    async def _ask(self) -> UnavailableError | None:
        answer: concurrent.futures.Future[UnavailableError | None] = concurrent.futures.Future()

        def ask() -> None:
            try:
                found = self._connector.ask()
            except BaseException as error:  # noqa: BLE001 - raised where it is awaited
                answer.set_exception(error)
            else:
                answer.set_result(found)

        # A daemon thread: the end of the process does not wait for it.
        threading.Thread(target=ask, name="postgres-ask", daemon=True).start()
        return await asyncio.wrap_future(answer)
