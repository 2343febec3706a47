"""The logs part on a real database, with a clock that tests move."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from monitor.logs.followers import LiveMessage
from monitor.logs.part import Logs
from monitor.logs.settings import LogsSettings
from monitor.store import DatabaseSettings, Store
from monitor.tokens import ANYONE, Principal, TokenFile
from tests.store.opened import opened
from tests.waiting import until

NOW = 1_700_000_000.0


class Clock:
    """s since the epoch, as the test says."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Client:
    """A connection without a transport: what it was answered, and what it follows."""

    def __init__(self, logs: Logs, principal: Principal | None = ANYONE) -> None:
        self.principal = principal
        self.answers: list[dict[str, Any]] = []
        self.live: list[dict[str, Any]] = []
        self.takes = True
        self._dropped = 0
        self.session = logs.session(send=self._take, follower=self)

    def _take(self, answer: bytes) -> None:
        self.answers.append(json.loads(answer))

    def offer(self, message: LiveMessage) -> None:
        if self.takes:
            self.live.append(json.loads(message.text(self._dropped)))
            self._dropped = 0
        else:
            self._dropped += message.count

    def catch_up(self) -> None:
        if self._dropped and self.takes:
            self.offer(LiveMessage([]))

    async def send(self, action: str, **message: Any) -> None:
        """Hand in a message without waiting for its answer."""
        await self.session.receive(
            json.dumps({"action": action, **message}).encode(), self.principal
        )

    async def ask(self, action: str, **message: Any) -> dict[str, Any]:
        before = len(self.answers)
        await self.send(action, **message)
        await self.session.answered()
        assert len(self.answers) == before + 1
        answer = self.answers[-1]
        assert answer["action"] == action
        return answer

    async def upload(self, *messages: str, **fields: Any) -> dict[str, Any]:
        return await self.ask("uploadLogs", logs=[line(text, **fields) for text in messages])

    async def texts(self, **query: Any) -> list[str]:
        answer = await self.ask("getLogs", **query)
        assert answer["status"] == "ok", answer
        return [entry["message"] for entry in answer["logs"]]

    def followed(self) -> list[str]:
        return [entry["message"] for message in self.live for entry in message["logs"]]


def line(message: str, **fields: Any) -> dict[str, Any]:
    return {"level": "info", "time": NOW, "sender": "addon-1", "message": message} | fields


@contextlib.asynccontextmanager
async def running(
    store: Store,
    clock: Clock,
    *,
    tokens: TokenFile | None = None,
    elapsed: Callable[[], float] | None = None,
    steady: Callable[[], float] | None = None,
    **settings: Any,
) -> AsyncIterator[Logs]:
    """Run the part; it purges when a test calls retain(), as its interval never comes.

    ``clock`` moves as time does, unless ``steady`` is another one.
    """
    logs = Logs(
        LogsSettings(**{"cleanup_interval": 1e6, **settings}),
        store,
        tokens=tokens or TokenFile(None),
        now=clock,
        steady=steady or clock,
        **({} if elapsed is None else {"clock": elapsed}),
    )
    await logs.start()
    task = asyncio.create_task(logs.run())
    try:
        yield logs
        await logs.drain()
    finally:
        task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        await logs.close()
    assert isinstance(outcome, asyncio.CancelledError), outcome


@contextlib.asynccontextmanager
async def two_instances(
    url: str, *, timewindows: tuple[float, float] = (60, 60)
) -> AsyncIterator[tuple[Logs, Logs]]:
    """Run the part twice on one PostgreSQL database."""
    database = DatabaseSettings(url=url)
    async with (
        opened(database) as one,
        opened(database) as two,
        running(one, Clock(), timewindow=timewindows[0]) as here,
        running(two, Clock(), timewindow=timewindows[1]) as there,
    ):
        yield here, there


__all__ = ["NOW", "Client", "Clock", "line", "opened", "running", "two_instances", "until"]
