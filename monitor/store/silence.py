"""Tells a database that is busy from one that takes connections and never answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial

from monitor.errors import UnavailableError
from monitor.files.threads import begin_aside
from monitor.store.postgres_connecting import Connector, Place
from monitor.store.threads import TimedOutError

__all__ = ["Silence"]

# How long a function runs until its server is asked, and between two questions. With the time of a
# new connection, it is less than within which everything works again.
_PATIENCE_S = 3.0


class Silence:
    """Looks whether the server answers a new connection; for the loop's thread.

    It does after a timeout, and while a function runs for long, at the ``places`` of those that
    run. ``give_up`` is called when the server does not answer: whatever runs waits for nothing.
    """

    def __init__(
        self,
        connector: Connector,
        places: Callable[[], Iterable[Place]],
        give_up: Callable[[], None],
    ) -> None:
        self._connector = connector
        self._places = places
        self._give_up = give_up
        self._asking = asyncio.Lock()
        self._looking: asyncio.Task[None] | None = None
        # Questions, which may still hang.
        self._asked: dict[Place | None, Future[UnavailableError | None]] = {}

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Ask the server every few seconds, as long as the block lasts."""
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None

        def wait() -> None:
            nonlocal timer
            timer = loop.call_later(_PATIENCE_S, look)

        def look() -> None:
            wait()
            if not self._asking.locked():
                self._looking = loop.create_task(self._look(), name="postgres:look")

        wait()
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()

    def close(self) -> None:
        """Wait for no more answers."""
        if self._looking is not None:
            self._looking.cancel()

    async def _look(self) -> None:
        async with self._asking:
            for place in set(self._places()):
                silence = await self._ask(place)
                # A pooler may have given the connection that it lacks to the very function.
                if silence is not None and not self._connector.answers_logins:
                    self._connector.away(silence)
                    self._give_up()

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

    async def _ask(self, place: Place | None = None) -> UnavailableError | None:
        asked = self._asked.get(place)
        if asked is None or asked.done():
            asked = self._asked[place] = begin_aside(partial(self._connector.ask, place))
        return await self._connector.ask_within(asked)
