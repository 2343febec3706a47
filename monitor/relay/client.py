"""A client that reconnects, resumes, and reports what it missed.

    async with RelayClient("ws://127.0.0.1:4567/", ["student_42"]) as client:
        async for event in client:
            ...

It speaks the recovering protocol, with all channels on one connection. If the relay does not
offer it, the client speaks the old one, with a connection for each channel.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Iterable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from monitor.backoff import Backoff
from monitor.errors import MonitorError, UsageError
from monitor.relay.client_position import (
    Away,
    End,
    Event,
    Feed,
    LegacyPosition,
    NotARelayError,
    Position,
    Refused,
    read_message,
)
from monitor.relay.codes import LOST, ComeBack, close_code
from monitor.relay.protocol_v2 import SUBPROTOCOL
from monitor.settings import hide_url_secrets

__all__ = ["MAX_MESSAGE_BYTES", "RelayClient"]

_OPEN_S = 10.0
_RETRY_S = (0.5, 15.0)
_EVENTS_AHEAD = 1000
MAX_MESSAGE_BYTES = 2**22
# Answers to the handshake that may change if the client tries again.
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class _Lost(Exception):  # noqa: N818 - it never leaves this module
    """There is no connection; ``delay_s`` if the close code says when to reconnect."""

    def __init__(self, problem: str, delay_s: tuple[float, float] | None = None) -> None:
        super().__init__(problem)
        self.delay_s = delay_s


class RelayClient:
    """Follows channels until they end: an asynchronous iterator of events.

    It ends when no channel is left to follow, and raises MonitorError if trying again makes no
    sense. A slow reader slows the connection down; nothing is dropped.
    """

    def __init__(self, url: str, channels: Iterable[str] = (), *, legacy: bool = False) -> None:
        self._url = url
        self._shown = hide_url_secrets(url)
        self._legacy = legacy
        self._positions = {name: Position(name) for name in channels}
        self._legacy_tasks: dict[str, asyncio.Task[None]] = {}
        self._connection: ClientConnection | None = None
        self._events: asyncio.Queue[Event | None] = asyncio.Queue(_EVENTS_AHEAD)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> RelayClient:
        self._task = asyncio.create_task(self._run(), name="relay-client")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Yield events until every channel has ended."""
        assert self._task is not None
        while True:
            event = await self._events.get()
            if event is None:
                # Raises what the task raised.
                await self._task
                return
            yield event

    async def subscribe(self, channel: str) -> None:
        """Follow one more channel."""
        if channel in self._positions:
            return
        position = self._positions[channel] = Position(channel)
        if self._legacy:
            self._follow_legacy(channel)
        elif self._connection is not None:
            with contextlib.suppress(ConnectionClosed):
                await self._connection.send(position.request())

    async def leave(self, channel: str) -> None:
        """Stop following a channel."""
        self._positions.pop(channel, None)
        task = self._legacy_tasks.pop(channel, None)
        if task is not None:
            task.cancel()
        elif self._connection is not None:
            with contextlib.suppress(ConnectionClosed):
                await self._connection.send(json.dumps({"type": "leave", "channel": channel}))

    async def close(self) -> None:
        """Close every connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # The connection

    async def _run(self) -> None:
        try:
            if not self._legacy:
                await self._again_and_again(self._recovering)
            if self._legacy:
                await self._follow_all_legacy()
        finally:
            # The reader of a full queue finds the end itself.
            with contextlib.suppress(asyncio.QueueFull):
                self._events.put_nowait(None)

    async def _again_and_again(self, attempt: Any, *args: Any) -> None:
        """Call ``attempt`` until it returns, with pauses that the close codes say, or back-off."""
        backoff = Backoff(*_RETRY_S)
        while True:
            try:
                await attempt(*args)
                return
            except _Lost as lost:
                if lost.delay_s is None:
                    delay = backoff.next_delay()
                else:
                    delay = random.uniform(*lost.delay_s)  # noqa: S311 - jitter is no secret
                    backoff.reset()
                await self._events.put(Away(f"{self._shown}: {lost}", delay))
                await asyncio.sleep(delay)

    async def _recovering(self) -> None:
        connection = await self._connect([SUBPROTOCOL])
        try:
            if connection.subprotocol != SUBPROTOCOL:
                self._legacy = True
                return
            self._connection = connection
            for position in self._positions.values():
                position.disconnected()
                await connection.send(position.request())
            while self._positions:
                await self._take(read_message(await connection.recv()))
        except ConnectionClosed as closed:
            raise self._lost(closed) from None
        except NotARelayError as problem:
            raise MonitorError(f"{self._shown}: {problem}") from None
        finally:
            self._connection = None
            await _close(connection)

    async def _take(self, message: dict[str, Any]) -> None:
        name = message.get("channel")
        if name is None:
            if message.get("type") == "feed":
                await self._events.put(Feed(str(message.get("state")), int(message["brokers"])))
            elif message.get("type") == "error":
                raise MonitorError(f"{self._shown}: {message.get('message')}")
            return
        position = self._positions.get(str(name))
        if position is None:
            return
        for event in position.take(message):
            if isinstance(event, End | Refused):
                del self._positions[position.channel]
            await self._events.put(event)

    async def _connect(self, subprotocols: list[str]) -> ClientConnection:
        try:
            # Not the library's reconnecting, which does not know the relay's close codes.
            return await connect(
                self._url,
                open_timeout=_OPEN_S,
                close_timeout=1,
                compression=None,
                max_size=MAX_MESSAGE_BYTES,
                subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            )
        except InvalidURI:
            raise UsageError(
                f"--url: {self._shown} is not ws://HOST:PORT/ or wss://HOST:PORT/"
            ) from None
        except InvalidStatus as error:
            status = error.response.status_code
            if status in _TRANSIENT_STATUS:
                raise _Lost(f"answered {status}") from None
            raise MonitorError(f"{self._shown}: refused with status {status}") from None
        except TimeoutError:
            raise _Lost("no answer in time") from None
        except InvalidHandshake as error:
            if isinstance(error.__cause__, EOFError):
                raise _Lost("no answer") from None
            raise MonitorError(f"{self._shown}: not a WebSocket server: {error}") from None
        except (OSError, EOFError, ConnectionClosed) as error:
            raise _Lost(getattr(error, "strerror", None) or "no answer") from None

    def _lost(self, closed: ConnectionClosed) -> _Lost:
        code = closed.rcvd.code if closed.rcvd is not None else LOST
        reason = closed.rcvd.reason if closed.rcvd is not None else ""
        row = close_code(code)
        if row.come_back is ComeBack.NEVER:
            raise MonitorError(f"{self._shown}: the relay closed: {reason or row.meaning}")
        return _Lost(reason or row.meaning, row.delay_s)

    # The old protocol

    async def _follow_all_legacy(self) -> None:
        for name in self._positions:
            self._follow_legacy(name)
        try:
            while self._legacy_tasks:
                done, _ = await asyncio.wait(
                    self._legacy_tasks.values(), return_when=asyncio.FIRST_COMPLETED
                )
                for name in [n for n, task in self._legacy_tasks.items() if task in done]:
                    self._legacy_tasks.pop(name).result()
                    self._positions.pop(name, None)
        finally:
            tasks = list(self._legacy_tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _follow_legacy(self, name: str) -> None:
        self._legacy_tasks[name] = asyncio.create_task(
            self._again_and_again(self._legacy_connection, LegacyPosition(name)),
            name=f"relay-client:{name}",
        )

    async def _legacy_connection(self, position: LegacyPosition) -> None:
        connection = await self._connect([])
        position.connected()
        try:
            await connection.send(position.channel)
            while True:
                for event in position.take(str(await connection.recv())):
                    await self._events.put(event)
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd is not None else LOST
            ends = list(position.closed(code))
            for event in ends:
                await self._events.put(event)
            if not ends:
                raise self._lost(closed) from None
        except NotARelayError as problem:
            raise MonitorError(f"{self._shown}: {problem}") from None
        finally:
            await _close(connection)


async def _close(connection: ClientConnection) -> None:
    with contextlib.suppress(OSError, ConnectionClosed):
        await connection.close()
