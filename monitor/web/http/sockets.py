"""The open WebSockets: which are accepted, what serves them, and how they end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from monitor.log_limits import RateLimitedLog
from monitor.web.http.access import Access, Refusal
from monitor.web.http.limits import Connections
from monitor.web.http.websocket import ClosedError, WebSocket

__all__ = ["Handler", "Sockets"]

logger = logging.getLogger("monitor.web")

Handler = Callable[[WebSocket], Awaitable[None]]
"""Serves one connection until it returns; it usually ends with ClosedError."""


class Sockets:
    """Accepts WebSockets by path and principal, and owns a task for each."""

    def __init__(
        self,
        access: Access,
        connections: Connections,
        handlers: Mapping[str, Handler],
        *,
        max_message_bytes: int,
    ) -> None:
        """Take a handler for each path."""
        self._access = access
        self._connections = connections
        self._handlers = handlers
        self._max_message_bytes = max_message_bytes
        self._open: dict[WebSocket, asyncio.Task[None] | None] = {}
        self._draining = False
        self._refusals_log = RateLimitedLog(logger)

    def __len__(self) -> int:
        return len(self._open)

    def protocol(self, **_: object) -> WebSocket:
        """Return the protocol of a new connection; uvicorn passes its own configuration."""
        socket = WebSocket(
            self,
            max_message_bytes=self._max_message_bytes,
            client_stall=self._connections.settings.client_stall,
        )
        self._open[socket] = None
        return socket

    def admit(self, socket: WebSocket) -> Refusal | None:
        """Decide by path and headers; None accepts it."""
        if self._draining:
            return Refusal(503, "the server is stopping")
        found = self._access.check("GET", socket.path, socket.headers, websocket=True)
        if isinstance(found, Refusal):
            self._refusals_log.warning(
                "websocket", "refused a WebSocket from %s: %s", socket.peer, found.detail
            )
            return found
        if socket.path not in self._handlers:
            return Refusal(404, "there is no WebSocket here")
        if found is not None:
            socket.principal = found
        return None

    def accepted(self, socket: WebSocket) -> None:
        """Serve the connection in a task."""
        self._open[socket] = asyncio.create_task(
            self._serve(socket), name=f"websocket:{socket.peer}"
        )

    def lost(self, socket: WebSocket) -> None:
        """Forget the connection, if its handler has ended, too."""
        self._connections.discard(socket.transport)
        if self._open.get(socket) is None:
            self._open.pop(socket, None)

    async def _serve(self, socket: WebSocket) -> None:
        code, reason = 1000, ""
        try:
            await self._handlers[socket.path](socket)
        except ClosedError:
            pass
        except Exception as error:  # noqa: BLE001 - a defect must end one connection, not more
            logger.error("serving a WebSocket failed: %s: %s", type(error).__name__, error)
            code, reason = 1011, "the server failed"
        finally:
            self._open.pop(socket, None)
        if self._draining:
            code, reason = 1001, "the server is stopping"
        await socket.close(code, reason)

    def recheck(self) -> None:
        """Close those that would no longer be accepted: tokens or origins have changed."""
        for socket, task in list(self._open.items()):
            if task is None:
                continue
            found = self._access.check("GET", socket.path, socket.headers, websocket=True)
            if isinstance(found, Refusal):
                logger.info("closing the WebSocket of %s: %s", socket.peer, found.detail)
                socket.begin_close(1008, "no longer allowed")
            elif found is not None:
                if socket.principal.may_read and not found.may_read:
                    # It may follow logs, which is only checked at the beginning.
                    logger.info("closing the WebSocket of %s: its role has changed", socket.peer)
                    socket.begin_close(1008, "no longer allowed")
                socket.principal = found

    async def drain(self, limit_s: float) -> None:
        """Let handlers finish what they have received, then close all with 1001."""
        self._draining = True
        for socket in self._open:
            socket.stop_receiving()
        tasks = [task for task in self._open.values() if task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=limit_s)

    def abort(self) -> None:
        """End all that are left at once."""
        for socket, task in list(self._open.items()):
            if task is not None:
                task.cancel()
            socket.transport.abort()
        self._open.clear()
