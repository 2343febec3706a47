"""The WebSocket side: which clients may connect, and how their connections end.

A connection's reader (:mod:`monitor.relay.legacy_reader`, :mod:`monitor.relay.recovering_reader`)
writes what its client gets.
"""

# ruff: noqa: D102 - ConnectionOwner documents the methods

from __future__ import annotations

import asyncio
import http
import logging
import ssl
from collections.abc import Callable

from websockets.http11 import Request, Response

from monitor.relay.codes import CLOSE_CODES, GOING_AWAY, TRY_AGAIN_LATER
from monitor.relay.connection import SubscriberConnection
from monitor.relay.delivery import Delivery, shown
from monitor.relay.legacy_reader import LegacyReader
from monitor.relay.protocol_v2 import SUBPROTOCOL
from monitor.relay.recovering_reader import RecoveringReader
from monitor.settings import Address, ListenAddress, address_text
from monitor.transport.crowds import Crowds
from monitor.transport.listen import listening_sockets
from monitor.transport.origins import is_allowed, shown_origin
from monitor.transport.preface import plain_answer
from monitor.transport.proxies import forwarded_for, is_trusted
from monitor.transport.tls_server import TLSServer

__all__ = ["CONNECTION_BYTES", "TLS_CONNECTION_BYTES", "Server"]

logger = logging.getLogger("monitor.relay")

# What a connection costs, without its subscriptions (measured).
CONNECTION_BYTES = 6000
TLS_CONNECTION_BYTES = 50_000
# Connections that wait to be accepted: when thousands come back at once, a full queue
# makes TCP try again after seconds. The kernel takes no more than net.core.somaxconn.
_BACKLOG = 4096
# The kernel gives up a peer that does not acknowledge a ping for this long (TCP_USER_TIMEOUT).
_UNACKNOWLEDGED_S = 60.0
# s for the handshake of TLS.
_TLS_S = 10.0
# Connections beyond max_clients that are not accepted yet, or closing. The host with most of these
# loses one to a newcomer, without an answer.
_SPARE = 256
# At a stop clients are disconnected one after the other, so that they do not come back all at
# once: this many a second, or more where that would take longer than this share of the time.
_GOODBYES_PER_SECOND = 1000
_GOODBYES_SHARE = 0.6


class Server:
    """Listens, and owns the clients' connections."""

    def __init__(
        self,
        address: ListenAddress,
        delivery: Delivery,
        *,
        tls: ssl.SSLContext | None,
        clock: Callable[[], float],
    ) -> None:
        self._address = address
        self.delivery = delivery
        self._tls = tls
        self._clock = clock
        self._servers: list[asyncio.Server | TLSServer] = []
        self._connections: set[SubscriberConnection] = set()
        # Clients, and connections that are not accepted yet or are closed for others.
        self._clients: Crowds[SubscriberConnection] = Crowds()
        self._others: Crowds[SubscriberConnection] = Crowds()
        self._draining = False
        # Why clients have to wait: they get 503.
        self.unready = ""
        self.addresses: list[tuple[str, int]] = []
        self.disconnects: dict[str, int] = {}

    @property
    def client_count(self) -> int:
        """How many connections there are, with and without a channel."""
        return len(self._connections)

    @property
    def connection_bytes(self) -> int:
        """How much memory connections take, and what waits in them for clients that do not read."""
        each = CONNECTION_BYTES if self._tls is None else TLS_CONNECTION_BYTES
        return each * len(self._connections) + self.delivery.unread_bytes

    # Life

    async def start(self) -> None:
        """Listen; raises ListenError."""
        loop = asyncio.get_running_loop()
        sockets = await listening_sockets(
            self._address, key="websocket_uri", unacknowledged_s=_UNACKNOWLEDGED_S
        )
        for socket in sockets:
            if self._tls is not None:
                encrypted = TLSServer(
                    socket,
                    self._connection,
                    self._tls,
                    limit_s=_TLS_S,
                    refused=self._refused_handshake,
                    full=lambda address: self._is_overfull() and self._is_full(address),
                    is_proxy=self._is_proxy,
                )
                encrypted.start(_BACKLOG)
                self._servers.append(encrypted)
            else:
                # The loop listens again, and its own backlog is a hundred.
                server = await loop.create_server(self._connection, sock=socket, backlog=_BACKLOG)
                self._servers.append(server)
            self.addresses.append(socket.getsockname()[:2])

    async def drain(self, limit_s: float) -> None:
        """Accept no more clients; send what is queued and close with 1001, in ``limit_s``."""
        self._draining = True
        for server in self._servers:
            server.close()
        self.delivery.flush()
        deadline = self._clock() + limit_s
        count = len(self._connections)
        spread_s = min(count / _GOODBYES_PER_SECOND, limit_s * _GOODBYES_SHARE)
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
        """End every connection at once."""
        for server in self._servers:
            server.close()
        connections = list(self._connections)
        for connection in connections:
            connection.transport.abort()
        self.delivery.stop()
        for connection in connections:
            await connection.wait_closed()
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()
        self.addresses.clear()

    async def _goodbye(
        self, connection: SubscriberConnection, delay_s: float, deadline: float
    ) -> None:
        await asyncio.sleep(delay_s)
        # Most of the time is for what is queued, the rest for the closing handshake.
        patience = deadline - (deadline - self._clock()) / 3
        while (
            connection.is_open
            and self._clock() < patience
            and (connection.reader.is_behind or connection.transport.get_write_buffer_size())
        ):
            await asyncio.sleep(0.02)
        connection.begin_close(GOING_AWAY, "the relay is restarting")
        await connection.wait_closed(max(deadline - self._clock(), 0.01))
        connection.transport.abort()

    # Clients

    def _connection(self, client: Address | None = None) -> SubscriberConnection:
        connection = SubscriberConnection(self)
        connection.client = client
        connection.reader = LegacyReader(connection, self.delivery)
        return connection

    def connected(self, connection: SubscriberConnection) -> None:
        """Count a connection; far beyond the limit another one is dropped without an answer."""
        self._connections.add(connection)
        self._others.add(connection, _address(connection))
        if connection.client is not None:
            connection.belongs_to(connection.client[0])
        if self._is_overfull():
            oldest = next(iter(self._others.largest()))
            self._others.discard(oldest)
            self._refused("max-clients", "dropped %s: too many clients", oldest.peer)
            oldest.transport.abort()

    def _is_overfull(self) -> bool:
        return len(self._connections) > self.delivery.limits.max_clients + _SPARE

    def _is_full(self, address: str) -> bool:
        """Whether there is no room for a client: its host would have as much as any other."""
        clients = self._clients
        if len(clients) < self.delivery.limits.max_clients:
            return False
        return len(clients.largest()) <= clients.count(address) + 1

    def _make_room(self) -> None:
        """If there are max_clients, close the newest one of the host with most."""
        if len(self._clients) >= self.delivery.limits.max_clients:
            newest = next(reversed(self._clients.largest()))
            self._clients.discard(newest)
            self._others.add(newest, _address(newest))
            self.delivery.fault(newest, "max-clients", "is one of too many from its host: 1013")
            newest.begin_close(TRY_AGAIN_LATER, "too many clients from this address")

    def _is_proxy(self, address: str) -> bool:
        return is_trusted(address, self.delivery.limits.trusted_proxies)

    def is_from_proxy(self, connection: SubscriberConnection) -> bool:
        # A proxy that named its client passes on what the client says, and vouches for none of it.
        return self._is_proxy(connection.client[0] if connection.client else connection.host)

    def refuse_preface(self, connection: SubscriberConnection, problem: str) -> None:
        self._refused("proxy", "invalid PROXY header from %s: %s", connection.peer, problem)

    def answer_plainly(self, connection: SubscriberConnection, method: str) -> bytes:
        full = self._is_full(_address(connection))
        return plain_answer(method, available=not (self._draining or full or self.unready))

    def answer(self, connection: SubscriberConnection, request: Request) -> Response:
        """Accept or refuse; a client that asks for the recovering protocol gets it."""
        limits = self.delivery.limits
        if self.is_from_proxy(connection):
            forwarded = request.headers.get_all("X-Forwarded-For")
            connection.client = (
                forwarded_for(forwarded, limits.trusted_proxies) or connection.client
            )
            connection.belongs_to(_address(connection))
        unavailable = http.HTTPStatus.SERVICE_UNAVAILABLE
        if self._draining:
            return self._refuse(connection, unavailable, "draining", "restarting")
        if self.unready:
            return self._refuse(connection, unavailable, "starting", self.unready)
        if self._is_full(_address(connection)):
            return self._refuse(connection, unavailable, "max-clients", "too many clients")
        for origin in request.headers.get_all("Origin") if limits.origins else ():
            if not is_allowed(origin, limits.origins):
                text = f"the origin {shown_origin(origin)} is not in relay.origins"
                return self._refuse(connection, http.HTTPStatus.FORBIDDEN, "origin", text)
        response = connection.protocol.accept(request)
        if response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS:
            self._make_room()
            self._others.discard(connection)
            self._clients.add(connection, _address(connection))
            if _offers_recovery(request):
                response.headers["Sec-WebSocket-Protocol"] = SUBPROTOCOL
                connection.reader = RecoveringReader(connection, self.delivery)
        return response

    def paused(self, connection: SubscriberConnection) -> None:
        self.delivery.paused(connection)

    def resumed(self, connection: SubscriberConnection) -> None:
        self.delivery.resumed(connection)

    def flooded(self, connection: SubscriberConnection) -> None:
        self.delivery.fault(connection, "flood", "sent too many small frames or requests: 1008")

    def lost(self, connection: SubscriberConnection) -> None:
        """Forget a connection that is lost; log what it sent if that was not WebSocket."""
        self._connections.discard(connection)
        self._clients.discard(connection)
        self._others.discard(connection)
        problem = connection.violation()
        if problem:
            self._refused("rubbish", "invalid WebSocket from %s: %s", connection.peer, problem)
        names = self.delivery.left(connection)
        if names:
            code = connection.protocol.close_code
            key = str(code) if code in CLOSE_CODES else "other"
            self.disconnects[key] = self.disconnects.get(key, 0) + 1
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            self.delivery.clients_log.info(
                "client gone", "a client left %s%s: %s", shown(names[0]), more, code
            )

    def _refuse(
        self, connection: SubscriberConnection, status: http.HTTPStatus, reason: str, text: str
    ) -> Response:
        connection.refused = True
        self._refused(reason, "refused %s: %s", connection.peer, text)
        response = connection.protocol.reject(status, f"{text}\n")
        if status is http.HTTPStatus.SERVICE_UNAVAILABLE:
            response.headers["Retry-After"] = "5"
        return response

    def _refused_handshake(self, kind: str, problem: str, peer: Address) -> None:
        text = "refused %s: %s" if problem else ""
        self._refused(kind, text, address_text(peer), problem)

    def _refused(self, kind: str, text: str, *args: object) -> None:
        faults = self.delivery.faults
        faults[kind] = faults.get(kind, 0) + 1
        if text:
            self.delivery.faults_log.warning(kind, text, *args)


def _address(connection: SubscriberConnection) -> str:
    return connection.host if connection.client is None else connection.client[0]


def _offers_recovery(request: Request) -> bool:
    offers = request.headers.get_all("Sec-WebSocket-Protocol")
    return any(name.strip() == SUBPROTOCOL for offer in offers for name in offer.split(","))
