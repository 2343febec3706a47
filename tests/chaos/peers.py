"""Peers that send what nobody should: rubbish, halves, too much, too slowly."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable

import zmq

from tests.chaos.stage import Stage

__all__ = ["Peers"]

_EVERY_S = 0.15
# Connections that say nothing more and stay, until this many others have come after them.
_KEPT = 24
_OVER_ZEROMQ = 0.05


class Peers:
    """Misbehaves in a thread, one way after another, until told to stop."""

    def __init__(self, stage: Stage) -> None:
        self._random = random.Random(stage.seed + 2)
        self._websocket = stage.websocket_port
        self._brokers = stage.zeromq_port
        self._logs = stage.logs_zeromq_port
        self._apis = [service.config["api"]["uri"][1] for service in stage.services]
        self._relay = stage.relay
        self._kept: deque[socket.socket] = deque()
        self._context = zmq.Context()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="peers", daemon=True)
        self.done: Counter[str] = Counter()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Close everything."""
        self._stopping.set()
        self._thread.join(30)
        while self._kept:
            self._kept.pop().close()
        self._context.destroy(linger=0)

    def _run(self) -> None:
        over_tcp: list[Callable[[], None]] = [
            self.rubbish_to_the_relay,
            self.rubbish_to_the_api,
            self.half_a_request,
            self.endless_headers,
            self.a_wrong_websocket_version,
            self.a_binary_first_message,
            self.a_reader_that_never_reads,
            self.a_client_that_vanishes,
            self.rubbish_to_the_broker_socket,
            self.a_wrong_token,
            self.a_path_that_is_none,
        ]
        # Each comes and goes as a broker does, and readers get a notice: not too many.
        over_zeromq: list[Callable[[], None]] = [
            self.messages_that_are_none,
            self.a_huge_frame,
            self.many_frames,
            self.a_request_to_exit,
            self.rubbish_to_the_log_socket,
        ]
        while not self._stopping.wait(_EVERY_S):
            ways = over_zeromq if self._random.random() < _OVER_ZEROMQ else over_tcp
            way = self._random.choice(ways)
            # A daemon that is down refuses; that is expected here.
            with contextlib.suppress(OSError):
                way()
            self.done[way.__name__] += 1
            while len(self._kept) > _KEPT:
                self._kept.popleft().close()

    # Over TCP.

    def _connect(self, port: int) -> socket.socket:
        peer = socket.create_connection(("127.0.0.1", port), timeout=2)
        self._kept.append(peer)
        return peer

    def _api(self) -> int:
        port: int = self._random.choice(self._apis)
        return port

    def rubbish_to_the_relay(self) -> None:
        self._connect(self._websocket).sendall(self._random.randbytes(2000))

    def rubbish_to_the_api(self) -> None:
        self._connect(self._api()).sendall(self._random.randbytes(2000))

    def half_a_request(self) -> None:
        port = self._random.choice([self._websocket, self._api()])
        self._connect(port).sendall(b"GET / HTTP/1.1\r\nHost: x\r\nUpgr")

    def endless_headers(self) -> None:
        peer = self._connect(self._random.choice([self._websocket, self._api()]))
        peer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        for number in range(200):
            peer.sendall(b"X-%d: " % number + b"y" * 1000 + b"\r\n")

    def _upgrade(self, port: int, version: int = 13) -> socket.socket:
        peer = self._connect(port)
        peer.sendall(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"Sec-WebSocket-Version: %d\r\n\r\n" % version
        )
        return peer

    def a_wrong_websocket_version(self) -> None:
        self._upgrade(self._random.choice([self._websocket, self._api()]), version=7)

    def a_binary_first_message(self) -> None:
        self._upgrade(self._websocket).sendall(b"\x82\x84\0\0\0\0\xff\xfe\xfd\xfc")

    def _subscribe(self, receive_buffer: int | None = None) -> socket.socket:
        peer = self._upgrade(self._websocket)
        if receive_buffer is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        name = self._random.choice(sorted(self._relay.channels) or ["job-1"]).encode()
        peer.sendall(bytes((0x81, 0x80 | len(name))) + b"\0\0\0\0" + name)
        return peer

    def a_reader_that_never_reads(self) -> None:
        self._subscribe(receive_buffer=1024)

    def a_client_that_vanishes(self) -> None:
        peer = self._subscribe()
        self._kept.remove(peer)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()

    def a_wrong_token(self) -> None:
        self._connect(self._api()).sendall(
            b"GET /job HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer rmt_wrong\r\n\r\n"
        )

    def a_path_that_is_none(self) -> None:
        path = self._random.choice(
            [b"/../../etc/passwd", b"/job/-1", b"/%00", b"/log?limit=x", b"/job/1/metric?since=nan"]
        )
        self._connect(self._api()).sendall(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")

    # Over ZeroMQ.

    def _send(self, port: int, *frames: bytes, endless: int = 0) -> None:
        peer = self._context.socket(zmq.DEALER)
        peer.setsockopt(zmq.SNDTIMEO, 500)
        try:
            peer.connect(f"tcp://127.0.0.1:{port}")
            with contextlib.suppress(zmq.Again):
                peer.send_multipart([*frames, *[b"x"] * endless])
        finally:
            peer.close(linger=300)

    def rubbish_to_the_broker_socket(self) -> None:
        self._connect(self._brokers).sendall(self._random.randbytes(500))

    def messages_that_are_none(self) -> None:
        frames: list[list[bytes]] = [
            [b""],
            [b"\xff\xfe"],
            [b"x\xff", b"TASK", b"1", b"COMPLETED"],
            [b"other", b"TASK"],
            [b"other", b"NONE OF OURS"],
            [b"", b"", b"", b""],
        ]
        self._send(self._brokers, *self._random.choice(frames))

    def a_huge_frame(self) -> None:
        self._send(self._brokers, b"other", b"TASK", b"z" * 3_000_000, b"COMPLETED")

    def many_frames(self) -> None:
        self._send(self._brokers, b"other", b"TASK", b"1", b"COMPLETED", endless=2000)

    def a_request_to_exit(self) -> None:
        self._send(self._brokers, b"0", b"exit")

    def rubbish_to_the_log_socket(self) -> None:
        self._send(
            self._logs,
            self._random.choice(
                [
                    b"",
                    b"{",
                    b"[]",
                    b'{"action": "uploadLogs"}',
                    b'{"action": "getLogs", "token": "rmt_wrong"}',
                    self._random.randbytes(300),
                ]
            ),
        )
