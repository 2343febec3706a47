"""The WebSocket side: connections, and what each still has to get.

The library does handshakes, parsing and closing. What subscribers get is written to their
transports by :meth:`Server._advance`, the one path for replay, live messages and clients that
were slow: it writes what lies between a subscriber's position and the channel's end, as far
as the transport takes it. Server frames are not masked, so with compression off the same
bytes go to every subscriber of a channel.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import http
import logging
import ssl
import struct
import termios
import time
from collections.abc import Callable, Iterable
from typing import Any

from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import DATA_OPCODES, Frame
from websockets.http11 import Request, Response
from websockets.protocol import State

from monitor.listen import listening_sockets
from monitor.logfile import RateLimitedLog
from monitor.relay.channels import Channel, Channels, Subscriber
from monitor.relay.protocol import PING
from monitor.settings import address_text

__all__ = ["ClientLimits", "Connection", "Server"]

_log = logging.getLogger(__name__)

# What one write may hold; a transport takes at most this beyond its own limit.
_CHUNK_BYTES = 65536
_WRITE_LIMIT_BYTES = 32768
# A channel's name is the only message that a client sends.
_MAX_NAME_BYTES = 4096
_HANDSHAKE_S = 10.0
_CLOSE_S = 10.0
# Well below the 60 s after which proxies cut idle connections. A peer that does not
# acknowledge a ping is given up by the kernel (TCP_USER_TIMEOUT).
_PING_S = 20
_UNACKNOWLEDGED_S = 60.0
# Connections beyond max_clients that are told so; more are dropped unheard.
_REFUSED_AT_ONCE = 256

# Close codes (RFC 6455, section 7.4.1).
NORMAL = 1000
GOING_AWAY = 1001
UNSUPPORTED = 1003
POLICY = 1008
TRY_AGAIN_LATER = 1013
_COUNTED_CODES = frozenset({1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1011, 1013})


class ClientLimits:
    """What one client may take, and how many there may be."""

    def __init__(
        self,
        *,
        max_clients: int,
        client_stall: float,
        subscribe_timeout: float,
        origins: Iterable[str],
    ) -> None:
        self.max_clients = max_clients
        self.client_stall = client_stall
        self.subscribe_timeout = subscribe_timeout
        self.origins = frozenset(origins)


class Connection(ServerConnection, Subscriber):
    """A client's connection, which is also its position in a channel."""

    def __init__(self, *args: Any, relay: Server, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.relay = relay
        self.channel = None
        self.position = 0
        # Set once the client sent a whole message; what follows means nothing.
        self.named = False
        # Code and reason to close with, or None where the connection is gone.
        self.end: asyncio.Future[tuple[int, str] | None] = self.loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection."""
        super().connection_made(transport)
        self.relay.connected(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake the handler and leave the channel."""
        super().connection_lost(exc)
        self.finish(None)
        self.relay.lost(self)

    def process_event(self, event: Any) -> None:
        """Let the first message through, and no other."""
        if isinstance(event, Frame) and event.opcode in DATA_OPCODES:
            if self.named:
                return
            self.named = event.fin
        super().process_event(event)

    def pause_writing(self) -> None:
        """The transport is full."""
        super().pause_writing()
        self.relay.paused(self)

    def resume_writing(self) -> None:
        """The transport takes more."""
        super().resume_writing()
        self.relay.resumed(self)

    def finish(self, how: tuple[int, str] | None) -> None:
        """Let the handler close the connection, unless it is ending already."""
        if not self.end.done():
            self.end.set_result(how)

    def untaken_bytes(self) -> int:
        """What waits for this client in our buffer and in the kernel's."""
        waiting = self.transport.get_write_buffer_size()
        with contextlib.suppress(OSError, ValueError, AttributeError):
            descriptor = self.transport.get_extra_info("socket").fileno()
            # SIOCOUTQ, tcp(7): bytes not yet acknowledged by the peer.
            waiting += struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0" * 4))[0]
        return waiting

    def peer(self) -> str:
        """The client's address, for the log."""
        address = self.remote_address
        return address_text(address[:2]) if address else "a client that is gone"


class Server:
    """Listens, subscribes clients to :class:`Channels`, and writes to them what is due."""

    def __init__(
        self,
        address: tuple[str, int],
        channels: Channels,
        limits: ClientLimits,
        *,
        tls: ssl.SSLContext | None,
        clock: Callable[[], float],
    ) -> None:
        self._address = address
        self._channels = channels
        self.limits = limits
        self._tls = tls
        self._clock = clock
        self._servers: list[WebSocketServer] = []
        self._connections: set[Connection] = set()
        # Connections by the second in which they are pinged, so that pings are spread.
        self._ping_turns: list[set[Connection]] = [set() for _ in range(_PING_S)]
        self._turn = 0
        self._dirty: dict[Channel, None] = {}
        self._flush_handle: asyncio.Handle | None = None
        # Clients whose transport is full: (bytes untaken at the last look, since when no less).
        self._stalled: dict[Connection, tuple[int, float]] = {}
        self._draining = False
        self._clients_log = RateLimitedLog(_log, lines=300, period_s=30)
        self._faults_log = RateLimitedLog(_log)
        self.addresses: list[tuple[str, int]] = []
        self.deliveries = 0
        self.disconnects: dict[str, int] = {}
        self.refused: dict[str, int] = {}

    @property
    def client_count(self) -> int:
        """How many connections there are, with and without a channel."""
        return len(self._connections)

    # Life

    async def start(self) -> None:
        """Listen; raises ListenError."""
        library_log = logging.getLogger(f"{__name__}.library")
        library_log.addFilter(self._library_says)
        sockets = await listening_sockets(
            self._address, key="websocket_uri", unacknowledged_s=_UNACKNOWLEDGED_S
        )

        def create_connection(*args: Any, **kwargs: Any) -> Connection:
            return Connection(*args, relay=self, **kwargs)

        for socket in sockets:
            server = serve(
                self._handle,
                sock=socket,
                ssl=self._tls,
                compression=None,
                process_request=self._admit,
                server_header=None,
                open_timeout=_HANDSHAKE_S,
                # One sweep pings all connections, instead of a task for each.
                ping_interval=None,
                close_timeout=_CLOSE_S,
                max_size=_MAX_NAME_BYTES,
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
        self.flush()
        deadline = self._clock() + limit_s
        goodbyes = [
            asyncio.create_task(self._goodbye(connection, deadline), name="relay:goodbye")
            for connection in self._connections
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
        if self._flush_handle is not None:
            self._flush_handle.cancel()
        for server in self._servers:
            await server.wait_closed()

    async def _goodbye(self, connection: Connection, deadline: float) -> None:
        # Most of the time is for what is queued, the rest for the closing handshake.
        patience = deadline - (deadline - self._clock()) / 3
        while (
            connection.state is State.OPEN
            and self._clock() < patience
            and (self._is_behind(connection) or connection.transport.get_write_buffer_size())
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
        if len(self._connections) > self.limits.max_clients:
            return self._refuse(
                connection, http.HTTPStatus.SERVICE_UNAVAILABLE, "max-clients", "too many clients"
            )
        origin = request.headers.get_all("Origin")
        if origin and self.limits.origins and not self.limits.origins.issuperset(origin):
            return self._refuse(
                connection, http.HTTPStatus.FORBIDDEN, "origin", "this origin is not allowed"
            )
        return None

    def _refuse(
        self, connection: ServerConnection, status: http.HTTPStatus, reason: str, text: str
    ) -> Response:
        self.refused[reason] = self.refused.get(reason, 0) + 1
        assert isinstance(connection, Connection)
        self._faults_log.warning(reason, "refused %s: %s", connection.peer(), text)
        response = connection.respond(status, f"{text}\n")
        if status is http.HTTPStatus.SERVICE_UNAVAILABLE:
            response.headers["Retry-After"] = "5"
        return response

    def connected(self, connection: Connection) -> None:
        """Count a connection that was accepted; far beyond the limit nobody is told why."""
        self._connections.add(connection)
        if len(self._connections) > self.limits.max_clients + _REFUSED_AT_ONCE:
            self.refused["max-clients"] = self.refused.get("max-clients", 0) + 1
            self._faults_log.warning(
                "max-clients", "dropped %s: too many clients", connection.peer()
            )
            connection.transport.abort()

    def lost(self, connection: Connection) -> None:
        """Forget a connection that is gone."""
        self._connections.discard(connection)
        for turn in self._ping_turns:
            turn.discard(connection)
        self._stalled.pop(connection, None)
        channel = connection.channel
        if channel is not None:
            self._channels.leave(connection)
            code = connection.close_code
            key = str(code) if code in _COUNTED_CODES else "other"
            self.disconnects[key] = self.disconnects.get(key, 0) + 1
            self._clients_log.info(
                "client gone", "a client left %s: %s", _shown(channel.name), code
            )

    async def _handle(self, connection: ServerConnection) -> None:
        assert isinstance(connection, Connection)
        # The headers of the handshake are of no more use, and take kilobytes.
        if connection.request is not None and connection.response is not None:
            connection.request.headers.clear()
            connection.response.headers.clear()
        try:
            async with asyncio.timeout(self.limits.subscribe_timeout):
                name = await connection.recv()
        except TimeoutError:
            self._fault(connection, "no-subscription", "named no channel in time")
            await self._close(connection, POLICY, "no channel was named in time")
            return
        except ConnectionClosed:
            return
        if not isinstance(name, str):
            self._fault(connection, "binary", "sent bytes where a channel's name was due")
            await self._close(connection, UNSUPPORTED, "a channel's name is text")
            return
        if not name:
            self._fault(connection, "empty-name", "named the empty channel")
            await self._close(connection, POLICY, "a channel's name is not empty")
            return
        self._clients_log.info(
            "client", "%s subscribed to %s", connection.peer(), _shown(name.encode())
        )
        self._channels.subscribe(connection, name.encode())
        self._ping_turns[hash(connection) % _PING_S].add(connection)
        self._advance(connection, {})
        how = await connection.end
        if how is not None:
            if how[0] == NORMAL:
                await self._empty(connection)
            await self._close(connection, *how)

    def _fault(self, connection: Connection, kind: str, text: str) -> None:
        self.refused[kind] = self.refused.get(kind, 0) + 1
        self._faults_log.warning(kind, "%s %s", connection.peer(), text)

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
            elif now - since >= self.limits.client_stall:
                return

    # Messages

    def changed(self, channel: Channel) -> None:
        """Note that a channel has news; all that is due goes out once in this turn of the loop."""
        self._dirty[channel] = None
        if self._flush_handle is None:
            self._flush_handle = asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Write to every subscriber of a changed channel what it has not got yet."""
        self._flush_handle = None
        dirty, self._dirty = self._dirty, {}
        for channel in dirty:
            # Most subscribers stand at the same position: its bytes are cut once.
            chunks: dict[int, tuple[bytearray, int]] = {}
            for subscriber in list(channel.subscribers) if channel.ended else channel.subscribers:
                self._advance(subscriber, chunks)  # type: ignore[arg-type]

    def _advance(self, connection: Connection, chunks: dict[int, tuple[bytearray, int]]) -> None:
        """Write what lies between a subscriber's position and the end, as far as it takes it."""
        channel = connection.channel
        if channel is None or connection.end.done() or connection.protocol.state is not State.OPEN:
            return
        end = channel.end
        position = connection.position
        if position < channel.first:
            self._fault(connection, "outrun", f"is too slow for {_shown(channel.name)}: 1013")
            connection.finish((TRY_AGAIN_LATER, "too slow: the history went on without you"))
            return
        write = connection.transport.write
        while position < end and not connection.paused:
            chunk = chunks.get(position)
            if chunk is None:
                chunk = chunks[position] = channel.read(position, _CHUNK_BYTES)
            write(chunk[0])
            self.deliveries += chunk[1] - position
            position = connection.position = chunk[1]
        if channel.ended and position == end:
            connection.finish((NORMAL, ""))

    def _is_behind(self, connection: Connection) -> bool:
        channel = connection.channel
        return channel is not None and channel.first <= connection.position < channel.end

    def paused(self, connection: Connection) -> None:
        """Watch a client whose transport is full, until it takes something."""
        self._stalled[connection] = (connection.untaken_bytes(), self._clock())

    def resumed(self, connection: Connection) -> None:
        """Go on with a client that took what it had."""
        self._stalled.pop(connection, None)
        asyncio.get_running_loop().call_soon(self._advance, connection, {})

    def sweep(self) -> None:
        """Do what is due each second: end stalled clients, ping a share of the others."""
        now = self._clock()
        for connection, (waiting, since) in list(self._stalled.items()):
            left = connection.untaken_bytes()
            if left < waiting:
                self._stalled[connection] = (left, now)
            elif now - since >= self.limits.client_stall and not connection.end.done():
                self._fault(connection, "stalled", f"took nothing for {now - since:.0f} s: 1013")
                connection.finish((TRY_AGAIN_LATER, "took nothing for too long"))
        self._turn = (self._turn + 1) % _PING_S
        for connection in self._ping_turns[self._turn]:
            if connection.protocol.state is State.OPEN and not connection.paused:
                connection.transport.write(PING)

    def _library_says(self, record: logging.LogRecord) -> bool:
        """Turn what the library says of a peer's garbage into a line, limited in rate."""
        if record.levelno >= logging.WARNING:
            error = record.exc_info[1] if record.exc_info else None
            cause = error.__cause__ or error.__context__ or error if error is not None else None
            details = f": {cause}" if cause is not None else ""
            self._faults_log.warning("handshake", "%s%s", record.getMessage(), details[:200])
        return False


def _shown(name: bytes) -> str:
    text = name[:100].decode(errors="replace")
    return f"{text}..." if len(name) > 100 else text


def monotonic() -> float:
    """Return s on the clock that the relay counts by."""
    return time.monotonic()
