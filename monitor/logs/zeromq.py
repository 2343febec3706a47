"""The log actions over a ZeroMQ ROUTER, for DEALER and REQ peers.

A message is one frame of JSON, after an empty frame if the peer is a REQ; answers have the same
envelope. The token is in the message. A peer is identified by its identity, and dropped when it
has been silent for a while without a live tail.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

import zmq

from monitor.log_limits import RateLimitedLog
from monitor.logs.actions import echo
from monitor.logs.answers import ActionError, ErrorCode, Head
from monitor.logs.peers import Peer
from monitor.logs.service import LogService
from monitor.tokens import TokenFile
from monitor.transport.router import Router, reason

__all__ = ["ZeroMq"]

logger = logging.getLogger("monitor.logs")

# Messages per turn of the loop, which has other work to do.
_BATCH: Final = 100
# How many answers to, and messages from, one peer libzmq may queue.
_SEND_QUEUE: Final = 100
_RECEIVE_QUEUE: Final = 8
# A frame over max_message_bytes is answered with an error; for one over so many times that,
# libzmq closes the connection.
_OVERSIZE: Final = 2
_MAX_PEERS: Final = 10_000
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
        self._router = Router(
            address,
            key="logs.zeromq_uri",
            options={
                zmq.LINGER: 500,  # ms for the last answers of a stop
                zmq.RCVHWM: _RECEIVE_QUEUE,
                zmq.SNDHWM: _SEND_QUEUE,
                zmq.MAXMSGSIZE: _OVERSIZE * service.settings.max_message_bytes,
                # Sending to a peer that is gone or takes nothing fails, instead of dropping.
                zmq.ROUTER_MANDATORY: 1,
            },
        )
        self._peers: dict[bytes, Peer] = {}
        self._inbox_bytes = 0
        self._full = False
        self._peers_log = RateLimitedLog(logger)

    def __len__(self) -> int:
        return len(self._peers)

    @property
    def endpoints(self) -> list[str]:
        """The endpoints on which it listens."""
        return self._router.endpoints

    async def start(self) -> None:
        """Bind; raises ListenError."""
        await self._router.bind()
        for endpoint in self.endpoints:
            logger.info("serving the log actions on %s", endpoint)
        self._router.read(self._drain)

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
        self._router.stop_reading()
        tasks = [peer.task for peer in self._peers.values() if peer.task is not None]
        if tasks:
            await asyncio.wait(tasks)
        for peer in list(self._peers.values()):
            await peer.session.answered()

    def close(self) -> None:
        """Close the socket and drop all peers."""
        self._router.stop_reading()
        for peer in list(self._peers.values()):
            if peer.task is not None:
                peer.task.cancel()
            self._forget(peer)
        self._router.close()

    def send(self, peer: Peer, text: bytes) -> bool:
        """Send to a peer at once; False if it is gone or takes nothing."""
        socket = self._router.socket
        if socket is None:
            return False
        frames = [peer.identity, b"", text] if peer.delimited else [peer.identity, text]
        try:
            socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            self._peers_log.warning("slow", "a ZeroMQ peer is too slow; messages to it are dropped")
            return False
        except zmq.ZMQError:
            self._forget(peer)
            return False
        finally:
            # Sending, even if it fails, may consume the edge of a message to read.
            self._router.drain_soon()
        peer.last_told = self._service.clock()
        return True

    def _drain(self) -> None:
        socket = self._router.socket
        if socket is None or not self._router.reading:
            return
        try:
            for _ in range(_BATCH):
                if self._inbox_bytes > _MAX_INBOX_BYTES:
                    self._full = True
                    return
                self._take(*_receive(socket))
        except zmq.Again:
            return
        except zmq.ZMQError as error:
            self._peers_log.warning("receive", "receiving failed: %s", reason(error))
            return
        self._router.drain_soon()

    def _take(self, frames: list[bytes], first: zmq.Frame) -> None:
        identity, *rest = frames
        peer = self._peer(identity)
        if self._tokens.current:
            # For the log, if the message is refused.
            with contextlib.suppress(zmq.ZMQError):
                peer.address = str(first.get("Peer-Address"))
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
            idle = next((each for each in self._peers.values() if each.idle), None)
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
        except Exception as error:  # noqa: BLE001 - must not affect other peers
            logger.error("serving a ZeroMQ peer failed: %s: %s", type(error).__name__, error)
        finally:
            peer.task = None
            if self._full and self._inbox_bytes <= _MAX_INBOX_BYTES // 2:
                self._full = False
                self._router.drain_soon()

    def _forget(self, peer: Peer) -> None:
        peer.session.close()
        self._inbox_bytes -= sum(map(len, peer.inbox))
        peer.inbox.clear()
        self._peers.pop(peer.identity, None)


def _receive(socket: zmq.Socket[bytes]) -> tuple[list[bytes], zmq.Frame]:
    """Return the first frames of the next message, and the first one as a Frame.

    Raises zmq.Again if there is none.
    """
    frame = first = socket.recv(zmq.NOBLOCK, copy=False)
    frames = [frame.bytes]
    while frame.more:
        frame = socket.recv(zmq.NOBLOCK, copy=False)
        if len(frames) < 4:
            frames.append(frame.bytes)
    return frames, first
