"""One epoll loop over the raw sockets of subscribers that come back, and the publisher's."""

from __future__ import annotations

import heapq
import random
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence

from benchmarks import relay_wire as wire
from benchmarks.process import cpu_seconds
from benchmarks.relay_recovery_readers import OLD, RECOVERING, Subscriber
from benchmarks.relay_streams import StreamError

__all__ = ["AT_ONCE_S", "Load"]

SUBPROTOCOL = "recodex.monitor.v2"
STALL_S = 30.0
# What a client of the close codes' table waits after a lost connection, and after a refusal.
AT_ONCE_S, BACK_OFF_S = (0.0, 1.0), (0.25, 0.5)
RESET = struct.pack("ii", 1, 0)


class Load:
    """One epoll loop over all subscribers' raw sockets, and the publisher's."""

    def __init__(self, pid: int, websocket: int, publish: int) -> None:
        self.pid = pid
        self.address = ("127.0.0.1", websocket)
        self.epoll = select.epoll()
        self.by_descriptor: dict[int, Subscriber] = {}
        self.publisher = socket.create_connection(("127.0.0.1", publish), 10)
        self.publisher.sendall(wire.ZMTP_HELLO)
        greeting = b""
        while len(greeting) < 64:
            greeting += self.publisher.recv(4096)
        self.refusals = 0
        # Who connects again, and when.
        self.due: list[tuple[float, int, Subscriber]] = []

    def connect(self, one: Subscriber) -> None:
        """Begin a connection; the loop does the rest."""
        one.socket = socket.socket()
        one.socket.setblocking(False)
        one.socket.connect_ex(self.address)
        one.buffer, one.connected, one.subscribed = b"", False, one.protocol == OLD
        self.by_descriptor[one.socket.fileno()] = one
        self.epoll.register(one.socket, select.EPOLLOUT)

    def lose(self, one: Subscriber, delay_s: tuple[float, float]) -> None:
        """Break a connection with a reset, and come back after a while."""
        del self.by_descriptor[one.socket.fileno()]
        one.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        one.socket.close()
        heapq.heappush(self.due, (time.perf_counter() + random.uniform(*delay_s), id(one), one))

    def turn(self, wait_s: float = 0.0) -> bool:
        """Do what there is to do; return whether there was anything."""
        now = time.perf_counter()
        while self.due and self.due[0][0] <= now:
            self.connect(heapq.heappop(self.due)[2])
        events = self.epoll.poll(wait_s, 4096)
        for descriptor, event in events:
            one = self.by_descriptor[descriptor]
            if not one.connected and event & select.EPOLLOUT:
                head = wire.upgrade("/", compression=False)
                if one.protocol == RECOVERING:
                    offer = f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n".encode()
                    head = head[:-2] + offer + b"\r\n"
                try:
                    one.socket.send(head)
                except OSError:
                    self.lose(one, BACK_OFF_S)
                    continue
                self.epoll.modify(descriptor, select.EPOLLIN)
                one.connected = True
            elif not one.connected:
                self.refusals += 1
                self.lose(one, BACK_OFF_S)
            else:
                self._read(one)
        return bool(events)

    def _read(self, one: Subscriber) -> None:
        try:
            data = one.socket.recv(65536)
        except OSError:
            data = b""
        if one.connected and not data:
            self.refusals += 1
            self.lose(one, BACK_OFF_S)
        elif not one.buffer.startswith(b"HTTP") and not data.startswith(b"HTTP"):
            one.take(data)
        else:
            one.buffer += data
            head, found, rest = one.buffer.partition(b"\r\n\r\n")
            if not found:
                return
            one.buffer = b""
            if not head.startswith(b"HTTP/1.1 101 "):
                self.refusals += 1
                self.lose(one, BACK_OFF_S)
                return
            one.upgraded = True
            if not one.silent:
                self.name(one)
            one.take(rest)

    def until(self, done: Callable[[], bool]) -> None:
        """Turn until ``done``."""
        moved = time.perf_counter()
        while not done():
            if self.turn(0.0005):
                moved = time.perf_counter()
            elif time.perf_counter() - moved > STALL_S:
                raise StreamError(f"nothing came for {STALL_S:g} s")

    def publish(self, data: bytes) -> None:
        """Send messages, reading the answers meanwhile."""
        self.publisher.setblocking(False)
        view = memoryview(data)
        while view:
            try:
                view = view[self.publisher.send(view[: 1 << 20]) :]
            except BlockingIOError:
                self.turn(0.001)

    def subscribe(self, subscribers: Sequence[Subscriber], seq: int) -> None:
        """Connect all, some at a time, and wait until each has ``seq`` messages."""
        for begin in range(0, len(subscribers), 500):
            some = subscribers[begin : begin + 500]
            for one in some:
                self.connect(one)
            self.until(lambda some=some: all(s.subscribed and s.seq >= seq for s in some))  # type: ignore[misc]

    def open(self, subscribers: Sequence[Subscriber]) -> None:
        """Connect all, some at a time; they name no channel before :meth:`name`."""
        for begin in range(0, len(subscribers), 500):
            some = subscribers[begin : begin + 500]
            for one in some:
                one.silent = True
                self.connect(one)
            self.until(lambda some=some: all(s.upgraded for s in some))  # type: ignore[misc]

    def name(self, one: Subscriber) -> None:
        """Have a subscriber name its channel."""
        one.socket.send(one.request())

    def part(self, subscribers: Iterable[Subscriber]) -> None:
        """Close the connections; nobody comes back."""
        for one in subscribers:
            del self.by_descriptor[one.socket.fileno()]
            one.socket.close()

    def rest(self) -> None:
        """Wait until the daemon is idle."""
        while True:
            before, until = cpu_seconds(self.pid), time.perf_counter() + 0.5
            while time.perf_counter() < until:
                self.turn(0.05)
            if cpu_seconds(self.pid) - before < 0.02:
                return
