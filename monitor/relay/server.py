"""The WebSocket side: who may connect, who is let go, and when.

The library does handshakes, parsing and closing; what clients get is written by
:class:`monitor.relay.delivery.Delivery`.
"""

from __future__ import annotations

import asyncio
import http
import logging
import ssl
from collections.abc import Callable
from typing import Any

from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State

from monitor.relay.codes import CLOSE_CODES, GOING_AWAY, NORMAL, POLICY, TOO_LONG, UNSUPPORTED
from monitor.relay.connection import Connection
from monitor.relay.delivery import Delivery, shown
from monitor.relay.protocol_v2 import MAX_MESSAGE_BYTES, SUBPROTOCOL
from monitor.relay.session import Session
from monitor.transport.listen import listening_sockets

__all__ = ["Server"]

logger = logging.getLogger("monitor.relay")

_WRITE_LIMIT_BYTES = 32768
# A channel's name is the only message that a client of the old protocol sends.
_MAX_NAME_BYTES = 4096
_HANDSHAKE_S = 10.0
# Connections that wait to be accepted: when thousands come back at once, a full queue
# makes TCP try again after seconds. The kernel takes no more than net.core.somaxconn.
_BACKLOG = 4096
_CLOSE_S = 10.0
# A peer that does not acknowledge a ping is given up by the kernel (TCP_USER_TIMEOUT).
_UNACKNOWLEDGED_S = 60.0
# Connections beyond max_clients that are told so; more are dropped unheard.
_REFUSED_AT_ONCE = 256
# Clients are sent away one after the other, so that they do not come back all at once: this
# many a second, or more where they would take longer than this share of the time to drain.
_GOODBYES_A_SECOND = 1000
_GOODBYES_SHARE = 0.6


class Server:
    """Listens, subscribes clients to channels, and lets go of them."""

    def __init__(
        self,
        address: tuple[str, int],
        delivery: Delivery,
        *,
        tls: ssl.SSLContext | None,
        clock: Callable[[], float],
    ) -> None:
        self._address = address
        self.delivery = delivery
        self._tls = tls
        self._clock = clock
        self._servers: list[WebSocketServer] = []
        self._connections: set[Connection] = set()
        self._draining = False
        self.addresses: list[tuple[str, int]] = []
        self.disconnects: dict[str, int] = {}

    @property
    def client_count(self) -> int:
        """How many connections there are, with and without a channel."""
        return len(self._connections)

    # Life

    async def start(self) -> None:
        """Listen; raises ListenError."""
        library_log = logging.getLogger(f"{__name__}.library")
        library_log.addFilter(self._library_says)
        # What it says below that would be made and thrown away, several times a connection.
        library_log.setLevel(logging.WARNING)
        sockets = await listening_sockets(
            self._address, key="websocket_uri", unacknowledged_s=_UNACKNOWLEDGED_S
        )

        def create_connection(*args: Any, **kwargs: Any) -> Connection:
            return Connection(*args, relay=self, **kwargs)

        for socket in sockets:
            server = serve(
                self._handle,
                sock=socket,
                # The loop listens again, and its own backlog is a hundred.
                backlog=_BACKLOG,
                ssl=self._tls,
                compression=None,
                process_request=self._admit,
                process_response=_answer,
                server_header=None,
                open_timeout=_HANDSHAKE_S,
                # One sweep pings all connections, instead of a task for each.
                ping_interval=None,
                close_timeout=_CLOSE_S,
                max_size=MAX_MESSAGE_BYTES,
                # At most one message is ever queued: see Connection.process_event.
                max_queue=None,
                write_limit=_WRITE_LIMIT_BYTES,
                logger=library_log,
                create_connection=create_connection,  # type: ignore[arg-type]
            )
            self._servers.append(await server)
            self.addresses.append(socket.getsockname()[:2])

    async def drain(self, limit_s: float) -> None:
        """Accept nobody more; give clients what is queued and close with 1001, in ``limit_s``."""
        self._draining = True
        for server in self._servers:
            server.close(close_connections=False)
        self.delivery.flush()
        deadline = self._clock() + limit_s
        count = len(self._connections)
        spread_s = min(count / _GOODBYES_A_SECOND, limit_s * _GOODBYES_SHARE)
        goodbyes = [
            asyncio.create_task(
                self._goodbye(connection, spread_s * number / count, deadline),
                name="relay:goodbye",
            )
            for number, connection in enumerate(self._connections)
        ]
        if goodbyes:
            await asyncio.wait(goodbyes, timeout=limit_s)
        for goodbye in goodbyes:
            goodbye.cancel()

    async def close(self) -> None:
        """Let go of every connection at once."""
        for server in self._servers:
            server.close(close_connections=False)
        for connection in list(self._connections):
            connection.transport.abort()
        self.delivery.stop()
        for server in self._servers:
            await server.wait_closed()

    async def _goodbye(self, connection: Connection, delay_s: float, deadline: float) -> None:
        await asyncio.sleep(delay_s)
        # Most of the time is for what is queued, the rest for the closing handshake.
        patience = deadline - (deadline - self._clock()) / 3
        while (
            connection.state is State.OPEN
            and self._clock() < patience
            and (
                self.delivery.is_behind(connection) or connection.transport.get_write_buffer_size()
            )
        ):
            await asyncio.sleep(0.02)
        await self._close(
            connection, GOING_AWAY, "the relay is restarting", deadline - self._clock()
        )

    # Clients

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Refuse what may not connect, before it costs more than a handshake."""
        if self._draining:
            return self._refuse(
                connection, http.HTTPStatus.SERVICE_UNAVAILABLE, "draining", "restarting"
            )
        if len(self._connections) > self.delivery.limits.max_clients:
            return self._refuse(
                connection, http.HTTPStatus.SERVICE_UNAVAILABLE, "max-clients", "too many clients"
            )
        origin = request.headers.get_all("Origin")
        allowed = self.delivery.limits.origins
        if allowed and any(each not in allowed for each in origin):
            return self._refuse(
                connection, http.HTTPStatus.FORBIDDEN, "origin", "this origin is not allowed"
            )
        return None

    def _refuse(
        self, connection: ServerConnection, status: http.HTTPStatus, reason: str, text: str
    ) -> Response:
        assert isinstance(connection, Connection)
        connection.refused = True
        self._turned_away(reason, "refused %s: %s", connection.peer(), text)
        response = connection.respond(status, f"{text}\n")
        if status is http.HTTPStatus.SERVICE_UNAVAILABLE:
            response.headers["Retry-After"] = "5"
        return response

    def connected(self, connection: Connection) -> None:
        """Count a connection that was accepted; far beyond the limit nobody is told why."""
        self._connections.add(connection)
        if len(self._connections) > self.delivery.limits.max_clients + _REFUSED_AT_ONCE:
            self._turned_away("max-clients", "dropped %s: too many clients", connection.peer())
            connection.transport.abort()

    def lost(self, connection: Connection) -> None:
        """Forget a connection that is gone; say what it sent where that was no WebSocket."""
        self._connections.discard(connection)
        problem = connection.rubbish()
        if problem:
            self._turned_away("rubbish", "%s sent no WebSocket: %s", connection.peer(), problem)
        names = self.delivery.left(connection)
        if names:
            code = connection.close_code
            key = str(code) if code in CLOSE_CODES else "other"
            self.disconnects[key] = self.disconnects.get(key, 0) + 1
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            self.delivery.clients_log.info(
                "client gone", "a client left %s%s: %s", shown(names[0]), more, code
            )

    def _turned_away(self, kind: str, text: str, *args: object) -> None:
        faults = self.delivery.faults
        faults[kind] = faults.get(kind, 0) + 1
        self.delivery.faults_log.warning(kind, text, *args)

    async def _handle(self, connection: ServerConnection) -> None:
        assert isinstance(connection, Connection)
        # The headers of the handshake are of no more use, and take kilobytes.
        if connection.request is not None and connection.response is not None:
            connection.request.headers.clear()
            connection.response.headers.clear()
        if connection.recovering:
            self.delivery.join(connection, None)
            connection.open_session(Session(connection, self.delivery))
            how = await self._until_end(connection)
        else:
            how = await self._named(connection) or await connection.end
        if how is not None:
            if how[0] == NORMAL:
                await self._empty(connection)
            await self._close(connection, *how)

    async def _named(self, connection: Connection) -> tuple[int, str] | None:
        """Take the name of a client's channel; return how to close where it gives none."""
        fault = self.delivery.fault
        try:
            async with asyncio.timeout(self.delivery.limits.subscribe_timeout):
                name = await connection.recv()
        except TimeoutError:
            fault(connection, "no-subscription", "named no channel in time")
            return POLICY, "no channel was named in time"
        except ConnectionClosed:
            return None
        if not isinstance(name, str):
            fault(connection, "binary", "sent bytes where a channel's name was due")
            return UNSUPPORTED, "a channel's name is text"
        if not name:
            fault(connection, "empty-name", "named the empty channel")
            return POLICY, "a channel's name is not empty"
        if len(name.encode()) > _MAX_NAME_BYTES:
            return TOO_LONG, f"a channel's name is longer than {_MAX_NAME_BYTES} bytes"
        self.delivery.join(connection, name)
        return None

    async def _until_end(self, connection: Connection) -> tuple[int, str] | None:
        """Wait until a session ends, which it does soon where nothing is asked of it."""
        limit_s = self.delivery.limits.subscribe_timeout
        patience = asyncio.get_running_loop().call_later(limit_s, self._lose_patience, connection)
        try:
            return await connection.end
        finally:
            patience.cancel()

    def _lose_patience(self, connection: Connection) -> None:
        session = connection.session
        if connection.open and session is not None and not session.asked:
            self.delivery.fault(connection, "no-subscription", "named no channel in time")
            connection.finish((POLICY, "no channel was named in time"))

    async def _close(
        self, connection: Connection, code: int, reason: str, limit_s: float = _CLOSE_S
    ) -> None:
        """Close, waiting for the peer's part of the handshake at most ``limit_s``."""
        try:
            async with asyncio.timeout(max(limit_s, 0.01)):
                await connection.close(code, reason)
        except TimeoutError:
            connection.transport.abort()

    async def _empty(self, connection: Connection) -> None:
        """Wait until our buffer for a client is empty, as long as the client takes something."""
        waiting, since = connection.untaken_bytes(), self._clock()
        while connection.state is State.OPEN and connection.transport.get_write_buffer_size():
            await asyncio.sleep(0.2)
            now, left = self._clock(), connection.untaken_bytes()
            if left < waiting:
                waiting, since = left, now
            elif now - since >= self.delivery.limits.client_stall:
                return

    def _library_says(self, record: logging.LogRecord) -> bool:
        """Turn what the library complains of into a line, limited in rate."""
        # Of handshakes that fail lost() tells, whatever the library's version says of them.
        handshake = record.getMessage().startswith("opening handshake")
        if record.levelno >= logging.WARNING and not handshake:
            error = record.exc_info[1] if record.exc_info else None
            cause = error.__cause__ or error.__context__ or error if error is not None else None
            details = f": {cause}" if cause is not None else ""
            self.delivery.faults_log.warning("library", "%s%s", record.getMessage(), details[:200])
        return False


def _answer(connection: ServerConnection, request: Request, response: Response) -> None:
    """Speak the recovering protocol to who asks for it, and the old one to everyone else.

    The library's select_subprotocol would do it with a function for each connection that refers
    to it and is referred to by it, so that neither is freed when the connection is gone.
    """
    assert isinstance(connection, Connection)
    offers = request.headers.get_all("Sec-WebSocket-Protocol")
    if offers and response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS:
        offered = {name.strip() for offer in offers for name in offer.split(",")}
        if SUBPROTOCOL in offered:
            connection.recovering = True
            response.headers["Sec-WebSocket-Protocol"] = SUBPROTOCOL
