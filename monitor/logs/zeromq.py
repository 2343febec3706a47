"""The log actions over a ZeroMQ ROUTER, for DEALER and REQ peers.

A message is one frame of JSON, behind an empty frame where the peer is a REQ; answers come in
the same envelope. The token stands in the message. A peer is known by its identity, and is
forgotten when it has been silent for a while and follows nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final

import zmq

from monitor.errors import ListenError
from monitor.listen import zeromq_endpoints
from monitor.logfile import RateLimitedLog
from monitor.logs.actions import echo
from monitor.logs.answers import ActionError, ErrorCode
from monitor.logs.followers import LiveMessage
from monitor.logs.service import LogService
from monitor.logs.session import Session
from monitor.settings import address_text
from monitor.tokens import TokenFile

__all__ = ["ZeroMq"]

_log = logging.getLogger(__name__)

# Messages a turn of the loop; its other work comes in between.
_BATCH: Final = 100
# Complete messages that libzmq may hold for one peer, either way.
_QUEUE: Final = 100
_MAX_PEERS: Final = 10_000
_MAX_INBOX: Final = 64
# Bytes that all inboxes may hold; past it the socket is not read.
_MAX_INBOX_BYTES: Final = 64 * 1024 * 1024
_FORGET_S: Final = 600.0
_SWEEP_S: Final = 10.0


class _Peer:
    """One identity: its session, what it sent that waits, and how it sees the live tail."""

    def __init__(self, transport: ZeroMq, identity: bytes, service: LogService) -> None:
        self.identity = identity
        self.delimited = False
        self.inbox: deque[bytes] = deque()
        self.task: asyncio.Task[None] | None = None
        self.last_heard = service.clock()
        self._transport = transport
        self._dropped = 0
        self.session = Session(service, send=self._answer, follower=self)

    def _answer(self, answer: bytes) -> None:
        self._transport.send(self, answer)

    def offer(self, message: LiveMessage) -> None:
        if self._transport.send(self, message.text(self._dropped)):
            self._dropped = 0
        else:
            self._dropped += message.count

    def catch_up(self) -> None:
        if self._dropped:
            self.offer(LiveMessage([]))


class ZeroMq:
    """Binds the ROUTER and serves its peers; belongs to the loop's thread."""

    def __init__(self, address: tuple[str, int], service: LogService, tokens: TokenFile) -> None:
        self._address = address
        self._service = service
        self._tokens = tokens
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._reader: int | None = None
        self._again: asyncio.Handle | None = None
        self._peers: dict[bytes, _Peer] = {}
        self._inbox_bytes = 0
        self._full = False
        self._peers_log = RateLimitedLog(_log)
        self.endpoints: list[str] = []

    def __len__(self) -> int:
        return len(self._peers)

    async def start(self) -> None:
        """Bind; raises ListenError."""
        endpoints = await zeromq_endpoints(self._address)
        context = self._context = zmq.Context()
        socket = self._socket = context.socket(zmq.ROUTER)
        socket.setsockopt(zmq.LINGER, 500)  # for the last answers of a stop
        socket.setsockopt(zmq.IPV6, any("[" in endpoint for endpoint in endpoints))
        socket.setsockopt(zmq.RCVHWM, _QUEUE)
        socket.setsockopt(zmq.SNDHWM, _QUEUE)
        socket.setsockopt(zmq.MAXMSGSIZE, self._service.settings.max_message_bytes)
        # Who is gone, or takes nothing, is said at once instead of being dropped in silence.
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 60)
        for endpoint in endpoints:
            try:
                socket.bind(endpoint)
            except zmq.ZMQError as error:
                problem = zmq.strerror(error.errno) if error.errno else str(error)
                address = address_text(self._address)
                raise ListenError("logs.zeromq_uri", address, problem) from None
            self.endpoints.append(socket.getsockopt_string(zmq.LAST_ENDPOINT))
            _log.info("serving the log actions on %s", self.endpoints[-1])
        loop = asyncio.get_running_loop()
        self._reader = socket.FD
        loop.add_reader(self._reader, self._drain)
        # What came between bind and add_reader has had its edge.
        loop.call_soon(self._drain)

    async def run(self) -> None:
        """Forget peers that have been silent, until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            oldest = self._service.clock() - _FORGET_S
            for peer in list(self._peers.values()):
                idle = peer.task is None and not peer.session.unanswered
                if idle and not peer.session.following and peer.last_heard < oldest:
                    self._forget(peer)

    async def drain(self) -> None:
        """Read nothing more, and answer what was read."""
        self._stop_reading()
        tasks = [peer.task for peer in self._peers.values() if peer.task is not None]
        if tasks:
            await asyncio.wait(tasks)
        for peer in list(self._peers.values()):
            await peer.session.answered()

    def close(self) -> None:
        """Let go of the socket and all peers."""
        self._stop_reading()
        for peer in list(self._peers.values()):
            if peer.task is not None:
                peer.task.cancel()
            self._forget(peer)
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._context is not None:
            self._context.term()
            self._context = None

    def send(self, peer: _Peer, text: bytes) -> bool:
        """Send to a peer at once; False where it is gone or takes nothing."""
        socket = self._socket
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
            self._come_back()
        return True

    def _stop_reading(self) -> None:
        if self._reader is not None:
            asyncio.get_running_loop().remove_reader(self._reader)
            self._reader = None
        if self._again is not None:
            self._again.cancel()
            self._again = None

    def _come_back(self) -> None:
        if self._again is None and self._reader is not None:
            self._again = asyncio.get_running_loop().call_soon(self._drain)

    def _drain(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None
        socket = self._socket
        if socket is None or self._reader is None:
            return
        try:
            for _ in range(_BATCH):
                if self._inbox_bytes > _MAX_INBOX_BYTES:
                    self._full = True
                    return
                self._take(_receive(socket))
        except zmq.Again:
            return
        except zmq.ZMQError as error:
            self._peers_log.warning("receive", "receiving failed: %s", error)
            return
        self._come_back()

    def _take(self, frames: list[bytes]) -> None:
        identity, *rest = frames
        delimited = len(rest) == 2 and rest[0] == b""
        if len(rest) != 1 and not delimited:
            self._peers_log.warning(
                "frames", "a ZeroMQ message of %d frames is none of ours", len(rest)
            )
            return
        peer = self._peers.get(identity)
        if peer is None:
            if len(self._peers) >= _MAX_PEERS:
                self._peers_log.warning("peers", "more than %d ZeroMQ peers at once", _MAX_PEERS)
                return
            peer = self._peers[identity] = _Peer(self, identity, self._service)
        peer.delimited = delimited
        peer.last_heard = self._service.clock()
        # A REQ takes one message for each of its own; the live tail would break its turns.
        peer.session.no_follower = (
            "a REQ peer can't follow; use a DEALER, without an empty frame" if delimited else ""
        )
        data = rest[-1]
        if len(peer.inbox) >= _MAX_INBOX:
            error = ActionError(
                ErrorCode.RATE_LIMITED, "too many messages wait already", retry_after=1.0
            )
            self._service.count(error.code)
            self.send(peer, error.answer(echo(data)))
            return
        peer.inbox.append(data)
        self._inbox_bytes += len(data)
        if peer.task is None:
            peer.task = asyncio.create_task(self._serve(peer), name="logs:zeromq-peer")

    async def _serve(self, peer: _Peer) -> None:
        try:
            while peer.inbox:
                data = peer.inbox.popleft()
                self._inbox_bytes -= len(data)
                principal = self._tokens.identify(echo(data).token)
                await peer.session.receive(data, principal)
        except Exception as error:  # noqa: BLE001 - a defect must end one peer's turn, not more
            _log.error("serving a ZeroMQ peer failed: %s: %s", type(error).__name__, error)
        finally:
            peer.task = None
            if self._full and self._inbox_bytes <= _MAX_INBOX_BYTES // 2:
                self._full = False
                self._come_back()

    def _forget(self, peer: _Peer) -> None:
        peer.session.close()
        self._inbox_bytes -= sum(map(len, peer.inbox))
        peer.inbox.clear()
        self._peers.pop(peer.identity, None)


def _receive(socket: zmq.Socket[bytes]) -> list[bytes]:
    """Return the first frames of the next message; raises zmq.Again where there is none."""
    frame = socket.recv(zmq.NOBLOCK, copy=False)
    frames = [frame.bytes]
    while frame.more:
        frame = socket.recv(zmq.NOBLOCK, copy=False)
        if len(frames) < 4:
            frames.append(frame.bytes)
    return frames
