"""The open WebSockets: which are accepted, what serves them, and how they end."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

from monitor.log_limits import RateLimitedLog
from monitor.tokens import Principal
from monitor.web.http.access import Access, Refusal, credentials_in, too_many
from monitor.web.http.attempts import Attempts
from monitor.web.http.connections import Connections
from monitor.web.http.websocket import ClosedError, WebSocket
from monitor.web.sub_path import inner_path

__all__ = ["Handler", "Sockets"]

logger = logging.getLogger("monitor.web")

# Bytes of unfinished messages in all WebSockets together; beyond that, of the token with most of
# them, the one that began first is given up.
_MAX_HELD_BYTES = 64 * 1024 * 1024

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
        attempts: Attempts,
        max_message_bytes: int,
    ) -> None:
        """Take a handler for each path."""
        self._attempts = attempts
        self._access = access
        self._connections = connections
        self._handlers = handlers
        self._max_message_bytes = max_message_bytes
        self._open: dict[WebSocket, asyncio.Task[None] | None] = {}
        self._held_bytes = 0
        # Those with an unfinished message, the one that began first first.
        self._unfinished: dict[WebSocket, None] = {}
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
        socket.client = self._connections.forwarded(
            self._connections.named(socket.transport) or socket.peername,
            socket.headers.get("x-forwarded-for"),
        )
        if socket.client is not None:
            socket.belongs_to(socket.client[0])
        socket.path = inner_path(self._connections.settings.root_path, socket.path)
        found = self._access.check("GET", socket.path, socket.headers, websocket=True)
        if isinstance(found, Refusal):
            if found.status == 401 and credentials_in(socket.headers):
                wait_s = self._attempts.fail(socket.host, asyncio.get_running_loop().time())
                found = too_many(wait_s) if wait_s else found
            self._refusals_log.warning(
                "websocket", "refused a WebSocket from %s: %s", socket.peer, found.detail
            )
            return found
        if socket.path not in self._handlers:
            return Refusal(404, "there is no WebSocket here")
        if found is not None:
            socket.principal = found
        self._connections.known(socket.transport)
        return None

    def accepted(self, socket: WebSocket) -> None:
        """Serve the connection in a task."""
        self._open[socket] = asyncio.create_task(
            self._serve(socket), name=f"websocket:{socket.peer}"
        )

    def holds(self, socket: WebSocket, change: int) -> None:
        """Count unfinished messages; give one up if there are too many."""
        self._held_bytes += change
        if socket.held_bytes:
            self._unfinished[socket] = None
        else:
            self._unfinished.pop(socket, None)
        if change > 0 and self._held_bytes > _MAX_HELD_BYTES:
            oldest = self._oldest_of_largest()
            self._refusals_log.warning(
                "unfinished", "closing the WebSocket of %s: too many unfinished bytes", oldest.peer
            )
            oldest.give_up()

    def _oldest_of_largest(self) -> WebSocket:
        held: Counter[Principal] = Counter()
        for each in self._unfinished:
            held[each.principal] += each.held_bytes
        ((largest, _),) = held.most_common(1)
        return next(each for each in self._unfinished if each.principal == largest)

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
