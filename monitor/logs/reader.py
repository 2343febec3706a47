"""Reads the logs of other daemons in a shared PostgreSQL, for a daemon without the logs part."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable

from monitor.logs.followers import Follower
from monitor.logs.instances import Instances
from monitor.logs.service import LogService
from monitor.logs.session import Session
from monitor.logs.settings import LogsSettings
from monitor.store import Store

__all__ = ["LogReader"]

_BEGIN_S = 3.0


class LogReader:
    """Queries and live tails of entries from other daemons; refuses uploads.

    The window is $LOGS_TIMEWINDOW or the default of ``logs.timewindow``, because the database does
    not have the setting of the other daemons. Raises SettingError.
    """

    def __init__(
        self,
        store: Store,
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.service = LogService(
            LogsSettings().with_environment(os.environ),
            store,
            now=now,
            clock=clock,
            takes_uploads=False,
        )
        self._instances = Instances(self.service, store)
        self._wanted = asyncio.Event()

    def session(self, *, send: Callable[[bytes], None], follower: Follower) -> Session:
        """Return a session for a new connection."""
        return Session(self.service, send=send, follower=follower)

    async def attend(self) -> None:
        """Start to receive commits, and wait for that, for a few seconds at most."""
        self._wanted.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_BEGIN_S):
                await self._instances.began.wait()

    async def run(self) -> None:
        """Listen to other instances from the first :meth:`attend` on, until cancelled."""
        try:
            await self._wanted.wait()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._instances.run(), name="logs:instances")
                tasks.create_task(self.service.tail.catch_up(), name="logs:followers")
                tasks.create_task(self.service.tail.search(), name="logs:searches")
                tasks.create_task(self.service.tail.match(), name="logs:expressions")
        finally:
            await self.service.close()
