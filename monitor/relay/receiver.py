"""The ZeroMQ socket: a ROUTER whose file descriptor sits in the daemon's loop.

The descriptor is edge-triggered: it is drained until libzmq has nothing more, and where the batch
limit stops a drain, the next turn of the loop comes back to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

import zmq
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils.monitor import parse_monitor_message

from monitor.errors import ListenError
from monitor.logfile import RateLimitedLog
from monitor.relay.feed import Peers
from monitor.relay.incoming import Incoming, waits
from monitor.relay.protocol import Malformed, Message, decode
from monitor.relay.settings import CurveKeys, CurveSettings, read_curve_keys
from monitor.settings import address_text
from monitor.transport.listen import zeromq_endpoints

__all__ = ["IDENTITY", "Receiver"]

logger = logging.getLogger("monitor.relay")

IDENTITY = b"recodex-monitor"
# Messages a turn of the loop; the loop's other work comes in between.
_BATCH = 500
# Complete messages that libzmq may hold for one peer while the loop is busy elsewhere.
_RECEIVE_QUEUE = 1000
_EVENTS = (
    zmq.EVENT_ACCEPTED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


class Receiver:
    """Binds the ROUTER and hands every good message to ``deliver``, in order.

    ``delivered`` is called after the last one of those that were there.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        max_frame_bytes: int,
        batch: Callable[[], int],
        curve: CurveSettings | None,
        deliver: Callable[[Message], None],
        delivered: Callable[[], None] = lambda: None,
        brokers_changed: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._address = address
        self._max_frame_bytes = max_frame_bytes
        self._batch = batch
        self._curve = curve
        self._deliver = deliver
        self._delivered = delivered
        # Told how many brokers are connected whenever one came or is gone.
        self._brokers_changed = brokers_changed
        self._peers_log = RateLimitedLog(logger)
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._incoming: Incoming
        self._monitor: zmq.Socket[bytes] | None = None
        self._authenticator: ThreadAuthenticator | None = None
        self._allowed = _AllowedKeys()
        self._readers: list[int] = []
        self._again: asyncio.Handle | None = None
        self.received = 0
        self.rejected: dict[str, int] = {}
        self.endpoints: list[str] = []
        self.peers = Peers()

    async def start(self) -> None:
        """Bind; raises ListenError."""
        endpoints = await zeromq_endpoints(self._address)
        context = self._context = zmq.Context()
        # The context's sockets are few; its threads are daemons and end with it.
        socket = self._socket = context.socket(zmq.ROUTER)
        self._incoming = Incoming(socket)
        socket.setsockopt(zmq.IDENTITY, IDENTITY)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IPV6, any("[" in endpoint for endpoint in endpoints))
        socket.setsockopt(zmq.RCVHWM, _RECEIVE_QUEUE)
        socket.setsockopt(zmq.MAXMSGSIZE, self._max_frame_bytes)
        # A broker that comes back under its name replaces the connection that it lost.
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 60)
        socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 15)
        socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 4)
        if self._curve is not None:
            self._require_curve(context, socket, self._curve)
        self._monitor = socket.get_monitor_socket(_EVENTS)
        for endpoint in endpoints:
            try:
                socket.bind(endpoint)
            except zmq.ZMQError as error:
                raise ListenError(
                    "zeromq_uri", address_text(self._address), _reason(error)
                ) from None
            self.endpoints.append(socket.getsockopt_string(zmq.LAST_ENDPOINT))
        loop = asyncio.get_running_loop()
        for source, drain in ((socket, self._drain), (self._monitor, self._drain_monitor)):
            descriptor = source.FD
            loop.add_reader(descriptor, drain)
            self._readers.append(descriptor)
        # What came before add_reader has had its edge.
        loop.call_soon(self._drain)
        loop.call_soon(self._drain_monitor)

    def stop(self) -> None:
        """Receive nothing more; what the socket still holds is drained first."""
        if self._socket is not None and self._readers:
            self._drain()
        loop = asyncio.get_running_loop()
        while self._readers:
            loop.remove_reader(self._readers.pop())
        if self._again is not None:
            self._again.cancel()

    def close(self) -> None:
        """Let go of sockets and threads."""
        if self._socket is not None:
            self.stop()
            self._socket.disable_monitor()
            if self._monitor is not None:
                self._monitor.close(0)
            self._socket.close(0)
            self._socket = None
        if self._authenticator is not None:
            self._authenticator.stop()
            self._authenticator = None
        if self._context is not None:
            self._context.term()
            self._context = None

    def adopt_keys(self, keys: CurveKeys) -> None:
        """Let in who has one of these keys, from the next handshake on."""
        self._allowed.keys = keys.allowed

    def _require_curve(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        socket: zmq.Socket[bytes],
        curve: CurveSettings,
    ) -> None:
        keys = read_curve_keys(curve)
        self.adopt_keys(keys)
        self._authenticator = ThreadAuthenticator(
            context, log=logging.getLogger(f"{__name__}.curve")
        )
        self._authenticator.start()
        self._authenticator.configure_curve_callback("*", self._allowed)
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)

    def _drain(self) -> None:
        if self._socket is None or self._monitor is None:
            return
        try:
            self._receive()
        finally:
            # Who hears of these messages hears first of the broker that came with them.
            if waits(self._monitor):
                self._drain_monitor()
            self._delivered()

    def _receive(self) -> None:
        self._again = None
        incoming, deliver = self._incoming, self._deliver
        try:
            for identity, frames, last in incoming.read(min(_BATCH, self._batch())):
                try:
                    message = decode(frames)
                except Malformed as problem:
                    self._reject(identity, last, problem)
                else:
                    self.received += 1
                    deliver(message)
        except zmq.ZMQError as error:
            self._peers_log.warning("receive", "receiving failed: %s", _reason(error))
        finally:
            # Whatever went wrong with one message, the others are not left waiting.
            if not incoming.empty:
                self._again = asyncio.get_running_loop().call_soon(self._drain)

    def _reject(self, identity: bytes, frame: zmq.Frame | None, problem: Malformed) -> None:
        self.rejected[problem.reason] = self.rejected.get(problem.reason, 0) + 1
        peer = "an unknown address"
        if frame is not None:
            with contextlib.suppress(zmq.ZMQError):
                peer = str(frame.get("Peer-Address"))
        self._peers_log.warning(
            problem.reason,
            "a message from %s (identity %s) is not relayed: %s",
            peer,
            identity.hex()[:64],
            problem.details,
        )

    def _drain_monitor(self) -> None:
        monitor = self._monitor
        while monitor is not None:
            try:
                event = parse_monitor_message(monitor.recv_multipart(zmq.NOBLOCK))
            except zmq.ZMQError:
                return
            kind = event["event"]
            peers = self.peers
            before = peers.count
            if kind == zmq.EVENT_ACCEPTED:
                peers.accepted(event["value"])
            elif kind == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                peers.succeeded()
                self._peers_log.info("connect", "a ZeroMQ peer connected, %d now", peers.count)
            elif kind == zmq.EVENT_DISCONNECTED:
                # What the peer sent before comes before the notice that it is gone.
                self._receive()
                self._delivered()
                peers.disconnected(event["value"])
                self._peers_log.info("disconnect", "a ZeroMQ peer is gone, %d now", peers.count)
            else:
                peers.failed()
                self._count_failed_handshake(kind)
            if peers.count != before:
                self._brokers_changed(peers.count)

    def _count_failed_handshake(self, kind: int) -> None:
        reason = "unauthorized" if kind == zmq.EVENT_HANDSHAKE_FAILED_AUTH else "handshake"
        self.rejected[reason] = self.rejected.get(reason, 0) + 1
        what = (
            "its key is not allowed" if reason == "unauthorized" else "it does not speak as we do"
        )
        self._peers_log.warning(reason, "a ZeroMQ peer was turned away: %s", what)


class _AllowedKeys:
    """What the authenticator's thread asks about a peer's public key."""

    keys: frozenset[bytes] = frozenset()

    def callback(self, domain: str, key: bytes) -> bool:
        """Return whether the key, in Z85, is one of those."""
        del domain
        return key in self.keys


def _reason(error: zmq.ZMQError) -> str:
    return zmq.strerror(error.errno) if error.errno else str(error)
