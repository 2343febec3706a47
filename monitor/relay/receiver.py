"""The ZeroMQ socket of the relay: it decodes what brokers send, and counts who is connected."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

import zmq
from zmq.utils.monitor import parse_monitor_message

from monitor.log_limits import RateLimitedLog
from monitor.relay.feed import Peers
from monitor.relay.incoming import Incoming, waits
from monitor.relay.protocol import Malformed, Message, decode
from monitor.relay.settings import CurveSettings, read_curve_keys
from monitor.transport.router import CurveKeys, Router, reason

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
        self._batch = batch
        self._curve = curve
        self._deliver = deliver
        self._delivered = delivered
        # Told how many brokers are connected whenever one came or is gone.
        self._brokers_changed = brokers_changed
        self._peers_log = RateLimitedLog(logger)
        self._router = Router(
            address,
            key="zeromq_uri",
            options={
                zmq.IDENTITY: IDENTITY,
                zmq.LINGER: 0,
                zmq.RCVHWM: _RECEIVE_QUEUE,
                zmq.MAXMSGSIZE: max_frame_bytes,
                # A broker that comes back under its name replaces the connection that it lost.
                zmq.ROUTER_HANDOVER: 1,
            },
            events=_EVENTS,
        )
        self._incoming: Incoming
        self.received = 0
        self.rejected: dict[str, int] = {}
        self.peers = Peers()

    @property
    def endpoints(self) -> list[str]:
        """Where it listens."""
        return self._router.endpoints

    async def start(self) -> None:
        """Bind; raises ListenError, and SettingError for keys that cannot be used."""
        keys = None
        if self._curve is not None:
            keys = read_curve_keys(self._curve)
        self._incoming = Incoming(await self._router.bind(keys))
        self._router.read(self._drain, self._drain_monitor)

    def stop(self) -> None:
        """Receive nothing more; what the socket still holds is drained first."""
        if self._router.reading:
            self._drain()
        self._router.stop_reading()

    def close(self) -> None:
        """Close the sockets and end their threads."""
        self.stop()
        self._router.close()

    def adopt_keys(self, keys: CurveKeys) -> None:
        """Let brokers with these keys connect; the relay's own stay."""
        self._router.allow(keys.allowed)

    def _drain(self) -> None:
        monitor = self._router.monitor
        if monitor is None:
            return
        try:
            self._receive()
        finally:
            # Who hears of these messages hears first of the broker that came with them.
            if waits(monitor):
                self._drain_monitor()
            self._delivered()

    def _receive(self) -> None:
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
            self._peers_log.warning("receive", "receiving failed: %s", reason(error))
        finally:
            # Whatever went wrong with one message, the others are not left waiting.
            if not incoming.empty:
                self._router.drain_soon()

    def _reject(self, identity: bytes, frame: zmq.Frame | None, problem: Malformed) -> None:
        self.rejected[problem.reason] = self.rejected.get(problem.reason, 0) + 1
        peer = "an unknown address"
        if frame is not None:
            with contextlib.suppress(zmq.ZMQError):
                peer = str(frame.get("Peer-Address"))
        self._peers_log.warning(
            problem.reason,
            "dropped a message from %s (identity %s): %s",
            peer,
            identity.hex()[:64],
            problem.details,
        )

    def _drain_monitor(self) -> None:
        monitor = self._router.monitor
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
                # The peer's messages come before the notice that it is lost.
                self._receive()
                self._delivered()
                peers.disconnected(event["value"])
                self._peers_log.info(
                    "disconnect", "a ZeroMQ peer disconnected, %d now", peers.count
                )
            else:
                peers.failed()
                self._count_failed_handshake(kind)
            if peers.count != before:
                self._brokers_changed(peers.count)

    def _count_failed_handshake(self, kind: int) -> None:
        if kind == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            name, problem = "unauthorized", "its key is not allowed"
        else:
            name, problem = "handshake", "incompatible protocol or security mechanism"
        self.rejected[name] = self.rejected.get(name, 0) + 1
        self._peers_log.warning(name, "refused a ZeroMQ peer: %s", problem)
