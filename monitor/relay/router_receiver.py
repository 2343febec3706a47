"""The relay's input by libzmq's ROUTER, for brokers with CURVE keys.

It counts who is connected by the events of the socket's monitor.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable

import zmq
from zmq.utils.monitor import parse_monitor_message

from monitor.relay.feed import Peers
from monitor.relay.protocol import Malformed, Message, decode
from monitor.relay.receiver import IDENTITY, Receiver
from monitor.transport.curve import CurveKeys, CurveSettings, read_curve_keys
from monitor.transport.incoming import Incoming, waits
from monitor.transport.router import Router, peer_address, reason
from monitor.transport.strangers import Strangers
from monitor.transport.unfinished import Unfinished

__all__ = ["RouterReceiver"]

logger = logging.getLogger("monitor.relay")

# Messages a turn of the loop; the loop's other work comes in between.
_BATCH = 500
# s of a turn, which the clock is asked for every few messages.
_BATCH_S = 0.005
_ASK_EVERY = 32
# Peers that come and go, in one turn.
_EVENTS_A_TURN = 100
# A message has a few frames, and its peer may have sent the next one in part.
_UNFINISHED_FRAMES = 8
_MOST_UNFINISHED_BYTES = 64 * 1024 * 1024
# Connections that delivered nothing yet; a site has a few brokers.
_MOST_STRANGERS = 256
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


class RouterReceiver(Receiver):
    """Binds the ROUTER; see :class:`Receiver`."""

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
        super().__init__(deliver=deliver, delivered=delivered, brokers_changed=brokers_changed)
        self._batch = batch
        self._curve = curve
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
        self._unfinished = Unfinished(
            logger,
            limit_bytes=2**20 + _UNFINISHED_FRAMES * max_frame_bytes,
            total_bytes=_MOST_UNFINISHED_BYTES,
        )
        self._strangers = Strangers(logger, _MOST_STRANGERS)
        self._incoming: Incoming
        self.peers = Peers()
        # How the handshake of the connection that is lost next failed.
        self._failed = 0

    @property
    def endpoints(self) -> list[str]:
        """Where it listens."""
        return self._router.endpoints

    async def start(self, *, read: bool = True) -> None:
        """Bind; raises ListenError, and SettingError for keys that cannot be used.

        Unless it shall ``read`` at once, brokers wait for :meth:`begin`.
        """
        keys = None
        if self._curve is not None:
            keys = read_curve_keys(self._curve)
        self._incoming = Incoming(await self._router.bind(keys))
        if read:
            self.begin()

    def begin(self) -> None:
        """Read what brokers send."""
        if not self._router.reading and self._router.socket is not None:
            self._router.read(self._drain, self._drain_monitor)
            self._unfinished.start()

    def hold(self) -> None:
        """Let brokers wait for :meth:`begin` again."""
        self._router.stop_reading()
        self._unfinished.stop()

    def stop(self) -> None:
        """Receive nothing more; what the socket still holds is drained first."""
        if self._router.reading:
            self._drain()
        self._router.stop_reading()
        self._unfinished.stop()

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
        unfinished, heard = self._unfinished, self._unfinished.heard
        until = time.thread_time() + _BATCH_S
        try:
            for count, (identity, frames, last) in enumerate(
                incoming.read(min(_BATCH, self._batch())), 1
            ):
                if identity not in heard:
                    unfinished.finished(identity, last)
                    self._strangers.heard(last)
                if incoming.dropping:
                    unfinished.too_long(last)
                try:
                    message = decode(frames)
                except Malformed as problem:
                    self._reject(problem, _address(last), identity)
                else:
                    self.received += 1
                    deliver(message)
                if not count % _ASK_EVERY and time.thread_time() >= until:
                    break
        except zmq.ZMQError as error:
            self._peers_log.warning("receive", "receiving failed: %s", reason(error))
        finally:
            # Whatever went wrong with one message, the others are not left waiting.
            if not incoming.empty:
                self._router.drain_soon()

    def _drain_monitor(self) -> None:
        monitor = self._router.monitor
        if monitor is None:
            return
        for _ in range(_EVENTS_A_TURN):
            try:
                event = parse_monitor_message(monitor.recv_multipart(zmq.NOBLOCK))
            except zmq.ZMQError:
                return
            kind = event["event"]
            peers = self.peers
            before = peers.count
            if kind == zmq.EVENT_ACCEPTED:
                peers.accepted(event["value"])
                self._unfinished.accepted(event["value"])
                self._strangers.accepted(event["value"])
            elif kind == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                peers.succeeded()
                self._log_connected(peers.count)
            elif kind == zmq.EVENT_DISCONNECTED:
                # The peer's messages come before the notice that it is lost.
                self._unfinished.gone(event["value"])
                self._strangers.gone(event["value"])
                self._receive()
                self._delivered()
                failed, self._failed = self._failed, 0
                if peers.disconnected(event["value"]):
                    self._log_disconnected(peers.count)
                elif failed:
                    self._count_failed_handshake(failed)
            else:
                peers.failed()
                self._failed = kind
            if peers.count != before:
                self._brokers_changed(peers.count)
            if kind == zmq.EVENT_DISCONNECTED and not self._incoming.empty:
                break
        self._router.drain_soon()

    def _count_failed_handshake(self, kind: int) -> None:
        if kind == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._refused("unauthorized", "its key is not allowed")
        else:
            self._refused("handshake", "incompatible protocol or security mechanism")


def _address(frame: zmq.Frame) -> str:
    """Return the address that sent a frame, as far as it is known."""
    with contextlib.suppress(zmq.ZMQError):
        return peer_address(frame)
    return "an unknown address"
