"""A client that reconnects, resumes, and reports what it missed.

    async with RelayClient("ws://127.0.0.1:4567/", ["student_42"]) as client:
        async for event in client:
            ...

It speaks the recovering protocol, with all channels on one connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidProxy,
    InvalidStatus,
    InvalidURI,
    ProxyError,
)
from websockets.typing import Subprotocol

from monitor.backoff import Backoff
from monitor.errors import MonitorError, UsageError
from monitor.relay.client_position import (
    Away,
    End,
    Event,
    Feed,
    NotARelayError,
    Position,
    Refused,
    read_message,
)
from monitor.relay.codes import LOST, ComeBack, close_code
from monitor.relay.protocol_v2 import SUBPROTOCOL
from monitor.settings import hide_url_secrets
from monitor.transport.environment_proxy import environment_proxy, through

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

    def __init__(self, url: str, channels: Iterable[str] = ()) -> None:
        self._url = url
        self._proxy = environment_proxy(url, secret=False)
        self._shown = hide_url_secrets(url) + through(self._proxy)
        self._positions = {name: Position(name) for name in channels}
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

    async def close(self) -> None:
        """Close every connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # The connection

    async def _run(self) -> None:
        """Connect until every channel has ended, with pauses by the close codes, or back-off."""
        backoff = Backoff(*_RETRY_S)
        try:
            while True:
                try:
                    await self._follow()
                    return
                except _Lost as lost:
                    if lost.delay_s is None:
                        delay = backoff.next_delay()
                    else:
                        delay = random.uniform(*lost.delay_s)  # noqa: S311 - jitter is not a secret
                        backoff.reset()
                    await self._events.put(Away(f"{self._shown}: {lost}", delay))
                    await asyncio.sleep(delay)
        finally:
            # The reader of a full queue finds the end itself.
            with contextlib.suppress(asyncio.QueueFull):
                self._events.put_nowait(None)

    async def _follow(self) -> None:
        connection = await self._connect()
        try:
            if connection.subprotocol != SUBPROTOCOL:
                raise MonitorError(f"{self._shown}: does not offer {SUBPROTOCOL}")
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
            with contextlib.suppress(OSError, ConnectionClosed):
                await connection.close()

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

    async def _connect(self) -> ClientConnection:
        try:
            # Not the library's reconnecting, which does not know the relay's close codes.
            return await connect(
                self._url,
                proxy=self._proxy,
                open_timeout=_OPEN_S,
                close_timeout=1,
                compression=None,
                max_size=MAX_MESSAGE_BYTES,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
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
        except (ProxyError, InvalidProxy) as error:
            raise MonitorError(f"{self._shown}: {error}") from None
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
