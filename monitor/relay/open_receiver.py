"""The relay's input without CURVE, where anybody may connect: each peer has its fair share.

libzmq would read whatever comes as fast as it comes, and give each peer a message in turn, however
long it takes: so a few peers with long messages delayed those of brokers by half a minute.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from monitor.relay.protocol import Malformed, Message, decode
from monitor.relay.receiver import IDENTITY, Receiver
from monitor.transport.crowds import Crowds
from monitor.transport.zmtp import Zmtp
from monitor.transport.zmtp_connection import ZmtpConnection
from monitor.transport.zmtp_server import ZmtpServer

__all__ = ["MOST_PEERS", "OpenReceiver"]

# Connections; a site has a few brokers.
MOST_PEERS = 256


class OpenReceiver(Receiver):
    """Listens for brokers; see :class:`Receiver`.

    Between two calls of ``delivered`` there are ``batch()`` messages at most.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        max_frame_bytes: int,
        batch: Callable[[], int],
        deliver: Callable[[Message], None],
        delivered: Callable[[], None] = lambda: None,
        brokers_changed: Callable[[int], None] = lambda count: None,
    ) -> None:
        super().__init__(deliver=deliver, delivered=delivered, brokers_changed=brokers_changed)
        self._batch = batch
        # Messages since the last call of delivered().
        self._waiting = 0
        self._brokers = 0
        self._peers: Crowds[ZmtpConnection] = Crowds()
        self._server = ZmtpServer(
            address,
            key="zeromq_uri",
            zmtp=lambda: Zmtp(max_frame_bytes=max_frame_bytes, identity=IDENTITY, old_peers=True),
            admit=self._admit,
            ready=self._came,
            received=self._receive,
            served=self._all_delivered,
            lost=self._lost,
            fault=self._fault,
        )

    @property
    def endpoints(self) -> list[str]:  # noqa: D102 - see Receiver
        return self._server.endpoints

    async def start(self, *, read: bool = True) -> None:  # noqa: D102
        await self._server.start(read=read)

    def begin(self) -> None:  # noqa: D102
        self._server.begin()

    def hold(self) -> None:  # noqa: D102
        self._server.hold_all()

    def stop(self) -> None:  # noqa: D102
        if self._server.reading:
            self._server.read_rest()
            self._all_delivered()
            self._server.stop_reading()

    def close(self) -> None:  # noqa: D102
        self.stop()
        self._server.close()

    def _receive(self, connection: ZmtpConnection, messages: deque[list[bytes]]) -> bool:
        batch, deliver = self._batch(), self._deliver
        while messages:
            self._waiting += 1
            try:
                message = decode(messages.popleft())
                self.received += 1
                deliver(message)
            except Malformed as problem:
                self._reject(problem, connection.address, connection.identity)
            except Exception as error:  # noqa: BLE001 - the loop reports it; the others follow
                asyncio.get_running_loop().call_exception_handler(
                    {"message": f"a message of {connection.peer} failed", "exception": error}
                )
            if self._waiting >= batch:
                self._all_delivered()
        return True

    def _all_delivered(self) -> None:
        if self._waiting:
            self._waiting = 0
            self._delivered()

    # Who is connected

    def _admit(self, connection: ZmtpConnection) -> bool:
        """Count a connection; if there are too many, the host with most of them makes room."""
        peers = self._peers
        if len(peers) >= MOST_PEERS:
            most = peers.largest()
            # A broker is ready, and was there before those that crowd it out.
            unready = (each for each in most if not each.is_ready)
            excess = next(unready, next(reversed(most)))
            peers.discard(excess)
            excess.drop("too many connections")
        peers.add(connection, connection.address)
        return True

    def _came(self, connection: ZmtpConnection) -> None:
        self._brokers += 1
        if connection.identity:
            # A broker that comes back under its name may have lost its connection; or there are two
            # of one name.
            for other in self._server.connections.values():
                if (
                    other is not connection
                    and other.is_ready
                    and (other.identity, other.address) == (connection.identity, connection.address)
                ):
                    other.ask_kernel()
        self._log_connected(self._brokers)
        self._brokers_changed(self._brokers)

    def _lost(self, connection: ZmtpConnection) -> None:
        self._all_delivered()
        self._peers.discard(connection)
        if connection.is_ready:
            self._brokers -= 1
            self._log_disconnected(self._brokers)
            self._brokers_changed(self._brokers)
        elif not connection.fault:
            self._refused_for("it went away")

    def _fault(self, connection: ZmtpConnection, problem: str) -> None:
        if connection.is_ready:
            self._peers_log.warning(
                "zeromq", "closing the ZeroMQ connection of %s: %s", connection.address, problem
            )
        else:
            self._refused_for(problem)

    def _refused_for(self, problem: str) -> None:
        self._refused("handshake", f"incompatible protocol or security mechanism: {problem}")
