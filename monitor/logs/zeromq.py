"""The log actions over ZeroMQ, for DEALER and REQ peers.

A message is one frame of JSON, after an empty frame if the peer is a REQ; answers have the same
envelope. The token is in the message. A peer is forgotten when it has been silent for a while
without a live tail.

Without CURVE a peer is a connection (:mod:`monitor.transport.zmtp_server`), whatever identity it
chose. With CURVE the peers are known, and libzmq's ROUTER tells them apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from typing import Final

import zmq
from zmq.utils.monitor import parse_monitor_message

from monitor.files.threads import call_aside
from monitor.log_limits import RateLimitedLog
from monitor.logs.answers import ActionError, ErrorCode, Head
from monitor.logs.heads import echo
from monitor.logs.peers import Peer
from monitor.logs.service import LogService
from monitor.tokens import TokenFile
from monitor.transport.crowds import Crowds
from monitor.transport.curve import CurveKeys, read_curve_keys
from monitor.transport.incoming import Incoming
from monitor.transport.router import Router, peer_address, reason
from monitor.transport.strangers import Strangers
from monitor.transport.unfinished import Unfinished
from monitor.transport.zmtp import Zmtp
from monitor.transport.zmtp_connection import ZmtpConnection
from monitor.transport.zmtp_server import ZmtpServer

__all__ = ["MOST_CONNECTIONS", "ZeroMq"]

logger = logging.getLogger("monitor.logs")

# Messages per turn of the loop, which has other work to do.
_BATCH: Final = 100
# How many answers to, and messages from, one peer libzmq may queue.
_SEND_QUEUE: Final = 100
_RECEIVE_QUEUE: Final = 8
# A frame over max_message_bytes is answered with an error; for one over this many times that,
# libzmq closes the connection.
_OVERSIZE: Final = 2
# Frames of a message.
_MAX_FRAMES: Final = 64
_MAX_PEERS: Final = 10_000
MOST_CONNECTIONS: Final = _MAX_PEERS + 500
"""Connections at once, some of which have sent nothing yet."""

# With CURVE, connections that have sent nothing yet, and bytes of unfinished messages on the wire.
_MOST_SILENT: Final = 500
_MOST_UNFINISHED_BYTES: Final = 64 * 1024 * 1024
_MAX_INBOX: Final = 64
# Bytes in all inboxes; beyond that the socket is not read.
_MAX_INBOX_BYTES: Final = 64 * 1024 * 1024
_FORGET_S: Final = 600.0
_SWEEP_S: Final = 10.0


class ZeroMq:
    """Binds the ROUTER and serves its peers; for the thread of the loop."""

    def __init__(self, address: tuple[str, int], service: LogService, tokens: TokenFile) -> None:
        self._service = service
        self._tokens = tokens
        self._curve = service.settings.curve
        largest = _OVERSIZE * service.settings.max_message_bytes
        key = "logs.zeromq_uri"
        self._router: Router | None = None
        self._server: ZmtpServer | None = None
        if self._curve is None:
            self._server = ZmtpServer(
                address,
                key=key,
                zmtp=lambda: Zmtp(
                    max_frame_bytes=largest, max_message_bytes=largest, max_frames=_MAX_FRAMES
                ),
                admit=self._admit,
                received=self._received,
                lost=self._lost,
            )
        else:
            self._router = Router(
                address,
                key=key,
                options={
                    zmq.LINGER: 500,  # ms for the last answers of a stop
                    zmq.RCVHWM: _RECEIVE_QUEUE,
                    zmq.SNDHWM: _SEND_QUEUE,
                    zmq.MAXMSGSIZE: largest,
                    # Sending to a peer that is gone or takes nothing fails, instead of dropping.
                    zmq.ROUTER_MANDATORY: 1,
                },
                events=zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED,
            )
        self._incoming: Incoming | None = None
        self._silent = Strangers(logger, _MOST_SILENT)
        self._unfinished = Unfinished(
            logger,
            limit_bytes=2**20 + 2 * largest,
            total_bytes=_MOST_UNFINISHED_BYTES,
            is_read=lambda: self._incoming is not None and self._incoming.empty,
        )
        self._peers: dict[bytes, Peer] = {}
        # Connections on which no valid token came yet, and how many others there are.
        self._strangers: Crowds[ZmtpConnection] = Crowds()
        self._known = 0
        self._inbox_bytes = 0
        self._full = False
        self._peers_log = RateLimitedLog(logger)

    def __len__(self) -> int:
        return len(self._peers)

    @property
    def endpoints(self) -> list[str]:
        """The endpoints on which it listens."""
        if self._server is not None:
            return self._server.endpoints
        return [] if self._router is None else self._router.endpoints

    async def start(self) -> None:
        """Bind; raises ListenError, and SettingError for unusable keys."""
        if self._server is not None:
            await self._server.start()
        elif self._router is not None and self._curve is not None:
            keys = await call_aside(read_curve_keys, self._curve)
            self._incoming = Incoming(await self._router.bind(keys))
        for endpoint in self.endpoints:
            words = ", with CURVE" if self._curve is not None else ""
            logger.info("serving the log actions on %s%s", endpoint, words)
        if self._router is not None:
            self._router.read(self._drain, self._drain_monitor)
            self._unfinished.start()

    def adopt_keys(self, keys: CurveKeys) -> None:
        """Accept peers with these keys from now on; the own key stays."""
        if self._router is not None:
            self._router.allow(keys.allowed)

    async def run(self) -> None:
        """Drop silent peers, until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            oldest = self._service.clock() - _FORGET_S
            for peer in list(self._peers.values()):
                if peer.idle and peer.last_heard < oldest:
                    self._forget(peer)

    async def drain(self) -> None:
        """Read nothing more, and answer the messages that were read."""
        self._stop_reading()
        tasks = [peer.task for peer in self._peers.values() if peer.task is not None]
        if tasks:
            await asyncio.wait(tasks)
        for peer in list(self._peers.values()):
            await peer.session.answered()
        if self._server is not None:
            await self._server.finish()

    def _stop_reading(self) -> None:
        if self._server is not None:
            self._server.stop_reading()
        if self._router is not None:
            self._router.stop_reading()
            self._unfinished.stop()

    def close(self) -> None:
        """Close the socket and drop all peers."""
        self._stop_reading()
        for peer in list(self._peers.values()):
            if peer.task is not None:
                peer.task.cancel()
            self._forget(peer)
        if self._server is not None:
            self._server.close()
        if self._router is not None:
            self._router.close()

    def send(self, peer: Peer, text: bytes) -> bool:
        """Send to a peer at once; False if it is gone or takes nothing."""
        frames = [b"", text] if peer.delimited else [text]
        try:
            if self._server is not None:
                connection = self._server.connections.get(peer.identity)
                if connection is None:
                    self._forget(peer)
                    return False
                sent = connection.send(frames)
            else:
                sent = self._route(peer.identity, frames)
        except zmq.ZMQError:
            self._forget(peer)
            return False
        if sent:
            peer.last_told = self._service.clock()
        else:
            self._peers_log.warning("slow", "a ZeroMQ peer is too slow; messages to it are dropped")
        return sent

    # Without CURVE

    def _admit(self, connection: ZmtpConnection) -> bool:
        """Return whether there is room; a stranger of the host with most of them makes it."""
        assert self._server is not None
        strangers = self._strangers
        if len(strangers) + self._known >= MOST_CONNECTIONS:
            oldest = next(iter(strangers.largest()), None)
            if oldest is None:
                return False
            strangers.discard(oldest)
            oldest.drop("too many connections, and no valid token came on this one")
        strangers.add(connection, connection.address)
        return True

    def _recognize(self, peer: Peer) -> None:
        """Note that a peer has sent a valid token: its connection is nobody's to take."""
        connection = None if self._server is None else self._server.connections.get(peer.identity)
        if connection is not None and not connection.is_known:
            connection.is_known = True
            self._known += 1
            self._strangers.discard(connection)

    def _received(self, connection: ZmtpConnection, messages: deque[list[bytes]]) -> bool:
        while messages:
            self._take(connection.number, messages.popleft(), connection.address)
            peer = self._peers.get(connection.number)
            self._full = self._full or self._inbox_bytes > _MAX_INBOX_BYTES
            if self._full or (peer is not None and len(peer.inbox) >= _MAX_INBOX):
                return False
        return True

    def _lost(self, connection: ZmtpConnection) -> None:
        """The connection is lost: its live tail ends, and what it sent is still stored."""
        self._known -= connection.is_known
        self._strangers.discard(connection)
        peer = self._peers.pop(connection.number, None)
        if peer is not None:
            peer.session.close()

    # With CURVE

    def _route(self, identity: bytes, frames: list[bytes]) -> bool:
        """Send by the ROUTER; False if the peer takes nothing. Raises ZMQError if it is gone."""
        router = self._router
        if router is None or router.socket is None:
            return False
        try:
            router.socket.send_multipart([identity, *frames], zmq.NOBLOCK)
        except zmq.Again:
            return False
        finally:
            # Sending, even if it fails, may consume the edge of a message to read.
            router.drain_soon()
        return True

    def _drain_monitor(self) -> None:
        monitor = None if self._router is None else self._router.monitor
        if monitor is None:
            return
        for _ in range(_BATCH):
            try:
                event = parse_monitor_message(monitor.recv_multipart(zmq.NOBLOCK))
            except zmq.ZMQError:
                return
            if event["event"] == zmq.EVENT_ACCEPTED:
                self._silent.accepted(event["value"])
                self._unfinished.accepted(event["value"])
            else:
                self._silent.gone(event["value"])
                self._unfinished.gone(event["value"])
        # No further edge signals what is left.
        asyncio.get_running_loop().call_soon(self._drain_monitor)

    def _drain(self) -> None:
        router, incoming = self._router, self._incoming
        if router is None or incoming is None or not router.reading:
            return
        if self._inbox_bytes > _MAX_INBOX_BYTES:
            self._full = True
            return
        unfinished = self._unfinished
        try:
            for identity, frames, last in incoming.read(_BATCH):
                if identity not in unfinished.heard:
                    unfinished.finished(identity, last)
                    self._silent.heard(last)
                if incoming.dropping:
                    unfinished.too_long(last)
                address = ""
                if self._tokens.current:
                    # For the log, if the message is refused.
                    with contextlib.suppress(zmq.ZMQError):
                        address = peer_address(last)
                self._take(identity, frames, address)
                if self._inbox_bytes > _MAX_INBOX_BYTES:
                    self._full = True
                    return
        except zmq.ZMQError as error:
            self._peers_log.warning("receive", "receiving failed: %s", reason(error))
            return
        if not incoming.empty:
            router.drain_soon()

    # Both

    def _take(self, identity: bytes, rest: Sequence[bytes], address: str) -> None:
        """Take the frames of a message from a peer at an address."""
        peer = self._peer(identity)
        peer.address = address or peer.address
        delimited = peer.delimited = len(rest) > 1 and rest[0] == b""
        if identity not in self._peers:
            self._refuse(peer, ErrorCode.UNAVAILABLE, "too many peers", 10.0)
            return
        if len(rest) - delimited != 1:
            problem = "expected one frame of JSON, after an empty one if the peer is a REQ"
            self._peers_log.warning("frames", "refused a ZeroMQ message of several frames")
            self._refuse(peer, ErrorCode.BAD_REQUEST, problem)
            return
        # A REQ expects one message for each of its own.
        peer.session.no_follower = (
            "a REQ peer cannot follow; use a DEALER, without an empty frame" if delimited else ""
        )
        data = rest[-1]
        if len(peer.inbox) >= _MAX_INBOX:
            problem = "too many messages are waiting"
            self._refuse(peer, ErrorCode.RATE_LIMITED, problem, 1.0, echo(data))
            return
        peer.inbox.append(data)
        self._inbox_bytes += len(data)
        if peer.task is None:
            peer.task = asyncio.create_task(self._serve(peer), name="logs:zeromq-peer")

    def _peer(self, identity: bytes) -> Peer:
        """Return the peer of an identity; if there are too many, it is not one of the peers."""
        peer = self._peers.pop(identity, None) or Peer(
            identity, self._service, self._tokens, send=self.send, refused=self._log_refused
        )
        peer.last_heard = self._service.clock()
        if len(self._peers) >= _MAX_PEERS:
            # The first is the one that has been silent for longest.
            # Those without a valid token go before others.
            peers = self._peers.values()
            idle = next((each for each in peers if each.idle and not each.is_known), None)
            idle = idle or next((each for each in peers if each.idle), None)
            if idle is None:
                self._peers_log.warning("peers", "more than %d ZeroMQ peers", _MAX_PEERS)
                return peer
            self._forget(idle)
        self._peers[identity] = peer
        return peer

    def _log_refused(self, peer: Peer, why: str) -> None:
        self._peers_log.warning("token", "refused a ZeroMQ message from %s: %s", peer.address, why)

    def _refuse(
        self,
        peer: Peer,
        code: ErrorCode,
        problem: str,
        retry_after: float | None = None,
        head: Head = Head(),  # noqa: B008 - it is frozen
    ) -> None:
        self._service.count(code)
        self.send(peer, ActionError(code, problem, retry_after=retry_after).answer(head))

    async def _serve(self, peer: Peer) -> None:
        try:
            while peer.inbox:
                data = peer.inbox.popleft()
                self._inbox_bytes -= len(data)
                await peer.serve(data)
                if peer.is_known:
                    self._recognize(peer)
                self._read_on(peer)
        except Exception as error:  # noqa: BLE001 - must not affect other peers
            logger.error("serving a ZeroMQ peer failed: %s: %s", type(error).__name__, error)
        finally:
            peer.task = None
            self._read_on(peer)

    def _read_on(self, peer: Peer) -> None:
        """Read again what was not read because too much was waiting."""
        server = self._server
        if self._full and self._inbox_bytes <= _MAX_INBOX_BYTES // 2:
            self._full = False
            if self._router is not None:
                self._router.drain_soon()
            for connection in () if server is None else server.connections.values():
                connection.resume()
        elif server is not None and not self._full and len(peer.inbox) <= _MAX_INBOX // 2:
            connection_ = server.connections.get(peer.identity)
            if connection_ is not None:
                connection_.resume()

    def _forget(self, peer: Peer) -> None:
        peer.session.close()
        self._inbox_bytes -= sum(map(len, peer.inbox))
        peer.inbox.clear()
        self._peers.pop(peer.identity, None)
