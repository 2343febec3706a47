"""The log actions over a ZeroMQ ROUTER, for DEALER and REQ peers.

A message is one frame of JSON, behind an empty frame where the peer is a REQ; answers come in
the same envelope. The token stands in the message. A peer is known by its identity, and is
forgotten when it has been silent for a while and follows nothing.
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

# Messages a turn of the loop; its other work comes in between.
_BATCH: Final = 100
# Answers that libzmq may hold for one peer, and messages of one that are not read yet.
_SEND_QUEUE: Final = 100
_RECEIVE_QUEUE: Final = 8
# A frame over max_message_bytes is refused in words; one over so many times that is refused by
# libzmq, which ends the connection without any.
_OVERSIZE: Final = 2
_MAX_PEERS: Final = 10_000
_MAX_INBOX: Final = 64
# Bytes that all inboxes may hold; past it the socket is not read.
_MAX_INBOX_BYTES: Final = 64 * 1024 * 1024
_FORGET_S: Final = 600.0
_SWEEP_S: Final = 10.0


class ZeroMq:
    """Binds the ROUTER and serves its peers; belongs to the loop's thread."""

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
                # Sending to a peer that is gone, or takes nothing, fails instead of dropping.
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
        """Where it listens."""
        return self._router.endpoints

    async def start(self) -> None:
        """Bind; raises ListenError."""
        await self._router.bind()
        for endpoint in self.endpoints:
            logger.info("serving the log actions on %s", endpoint)
        self._router.read(self._drain)

    async def run(self) -> None:
        """Forget peers that have been silent, until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            oldest = self._service.clock() - _FORGET_S
            for peer in list(self._peers.values()):
                if peer.idle and peer.last_heard < oldest:
                    self._forget(peer)

    async def drain(self) -> None:
        """Read nothing more, and answer what was read."""
        self._router.stop_reading()
        tasks = [peer.task for peer in self._peers.values() if peer.task is not None]
        if tasks:
            await asyncio.wait(tasks)
        for peer in list(self._peers.values()):
            await peer.session.answered()

    def close(self) -> None:
        """Let go of the socket and all peers."""
        self._router.stop_reading()
        for peer in list(self._peers.values()):
            if peer.task is not None:
                peer.task.cancel()
            self._forget(peer)
        self._router.close()

    def send(self, peer: Peer, text: bytes) -> bool:
        """Send to a peer at once; False where it is gone or takes nothing."""
        socket = self._router.socket
        if socket is None:
            return False
        frames = [peer.identity, b"", text] if peer.delimited else [peer.identity, text]
        try:
            socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            self._peers_log.warning("slow", "a ZeroMQ peer takes nothing; messages to it are lost")
            return False
        except zmq.ZMQError:
            self._forget(peer)
            return False
        finally:
            # Sending, also in vain, may have eaten the edge that told of something to read.
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
            # What is refused is said with where it came from.
            with contextlib.suppress(zmq.ZMQError):
                peer.address = str(first.get("Peer-Address"))
        delimited = peer.delimited = len(rest) > 1 and rest[0] == b""
        if identity not in self._peers:
            self._refuse(peer, ErrorCode.UNAVAILABLE, "too many peers at once", 10.0)
            return
        if len(rest) - delimited != 1:
            problem = "a message is one frame of JSON, behind an empty one where the peer is a REQ"
            self._peers_log.warning("frames", "a ZeroMQ message of several frames is none of ours")
            self._refuse(peer, ErrorCode.BAD_REQUEST, problem)
            return
        # A REQ takes one message for each of its own; the live tail would break its turns.
        peer.session.no_follower = (
            "a REQ peer can't follow; use a DEALER, without an empty frame" if delimited else ""
        )
        data = rest[-1]
        if len(peer.inbox) >= _MAX_INBOX:
            problem = "too many messages wait already"
            self._refuse(peer, ErrorCode.RATE_LIMITED, problem, 1.0, echo(data))
            return
        peer.inbox.append(data)
        self._inbox_bytes += len(data)
        if peer.task is None:
            peer.task = asyncio.create_task(self._serve(peer), name="logs:zeromq-peer")

    def _peer(self, identity: bytes) -> Peer:
        """Return who sent a message; one that is not among the peers where there is no room."""
        peer = self._peers.pop(identity, None) or Peer(
            identity, self._service, self._tokens, send=self.send, refused=self._say_refused
        )
        peer.last_heard = self._service.clock()
        if len(self._peers) >= _MAX_PEERS:
            # Whoever was silent the longest comes first.
            idle = next((each for each in self._peers.values() if each.idle), None)
            if idle is None:
                self._peers_log.warning("peers", "more than %d ZeroMQ peers at once", _MAX_PEERS)
                return peer
            self._forget(idle)
        self._peers[identity] = peer
        return peer

    def _say_refused(self, peer: Peer, why: str) -> None:
        self._peers_log.warning(
            "token", "a ZeroMQ message from %s is refused: %s", peer.address, why
        )

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
        except Exception as error:  # noqa: BLE001 - a defect must end one peer's turn, not more
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
    """Return the first frames of the next message, and the very first as libzmq has it.

    Raises zmq.Again where there is none.
    """
    frame = first = socket.recv(zmq.NOBLOCK, copy=False)
    frames = [frame.bytes]
    while frame.more:
        frame = socket.recv(zmq.NOBLOCK, copy=False)
        if len(frames) < 4:
            frames.append(frame.bytes)
    return frames, first
