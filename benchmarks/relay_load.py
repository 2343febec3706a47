"""The sockets of one load on a relay, and the loop that drives them.

One epoll loop reads all subscribers' raw sockets. What a subscriber must get is known
beforehand, byte by byte, so that content and order of every message are checked by one
``startswith`` on what a read returned; only control frames (pings, the close) leave that
path. What is published is encoded beforehand too. So the load stays well below the cost
of the servers, which its own share of its core, printed with each result, shows.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections import deque
from collections.abc import Iterable

from benchmarks import relay_wire as wire
from benchmarks.process import cpu_seconds
from benchmarks.relay_dialects import RELAY, Dialect
from benchmarks.relay_streams import Channel, StreamError, Subscriber

__all__ = ["Load", "Result"]

Result = dict[str, float]
STALL_S = 30.0
NAP_S = 0.0005
REFUSED = (b"HTTP/1.1 4", b"HTTP/1.1 5", b'"error"')
OPEN_AT_ONCE = 64  # less than asyncio's backlog of 100


class Load:
    """The sockets of one load, and the loop that drives them."""

    def __init__(
        self,
        pid: int,
        websocket_port: int,
        publish_port: int,
        *,
        compression: bool,
        dialect: Dialect = RELAY,
    ) -> None:
        self.pid = pid
        self.dialect = dialect
        self.compression = compression
        self.websocket = ("127.0.0.1", websocket_port)
        self.epoll = select.epoll()
        self.subscribers: dict[int, Subscriber] = {}
        self.unmet = 0
        self.latencies: list[float] = []
        self.read_size = 16384
        self.outgoing: deque[memoryview] = deque()
        self.incoming = b""
        self.answers = 0  # over HTTP, still to come
        self.publisher = self._open_publisher(publish_port)
        self.idle_s = 0.0  # spent on finding nothing to do
        self._marked: list[tuple[float, float, float]] = []

    # The publisher's side.

    def _open_publisher(self, port: int) -> socket.socket:
        publisher = socket.create_connection(("127.0.0.1", port), 10)
        publisher.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self.dialect.http:
            publisher.sendall(wire.ZMTP_HELLO)
            while len(self.incoming) < 64:
                self.incoming += publisher.recv(4096)
            self.incoming = self.incoming[64:]
        publisher.setblocking(False)
        self.epoll.register(publisher, select.EPOLLIN)
        return publisher

    def publish(self, data: bytes) -> None:
        """Send encoded messages; what the socket does not take goes out from :meth:`run`."""
        self.outgoing.append(memoryview(data))
        if self.dialect.http:
            self.answers += data.count(b"POST ")
        self._flush()

    def _flush(self) -> None:
        while self.outgoing:
            try:
                sent = self.publisher.send(self.outgoing[0])
            except BlockingIOError:
                self.epoll.modify(self.publisher, select.EPOLLIN | select.EPOLLOUT)
                return
            if sent < len(self.outgoing[0]):
                self.outgoing[0] = self.outgoing[0][sent:]
            else:
                self.outgoing.popleft()
        self.epoll.modify(self.publisher, select.EPOLLIN)

    def _publisher_event(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = self.publisher.recv(65536)
            if not data:
                raise StreamError("the server closed the publisher's connection")
            self.incoming += data
        if self.dialect.http:
            head = b"HTTP/1.1 20"
            self.answers -= self.incoming.count(head)
            if any(sign in self.incoming for sign in REFUSED):
                raise StreamError(f"not published: {self.incoming[:200]!r}")
            # Keep what may be the beginning of the next answer, never a whole one.
            self.incoming = self.incoming[-(len(head) - 1) :]
        else:
            frames, self.incoming = wire.zmtp_frames(self.incoming)
            for flags, body in frames:
                if flags & 0x04 and (pong := wire.zmtp_pong(body)):
                    self.outgoing.append(memoryview(pong))
        self._flush()

    # The subscribers' side.

    def connect(self, subscribers: Iterable[Subscriber], *, subscribe: bool = True) -> None:
        """Open the subscribers' WebSockets and, unless told otherwise, name their channels."""
        waiting = list(subscribers)
        while waiting:
            now, waiting = waiting[:OPEN_AT_ONCE], waiting[OPEN_AT_ONCE:]
            for one in now:
                one.socket = socket.create_connection(self.websocket, 10)
                one.receive = one.socket.recv
                path = self.dialect.path(one.channel.name)
                one.socket.sendall(wire.upgrade(path, compression=self.compression))
            for one in now:
                head = b""
                while b"\r\n\r\n" not in head:
                    data = one.receive(4096)
                    if not data:
                        raise StreamError(f"closed in the handshake: {head!r}")
                    head += data
                head, _, rest = head.partition(b"\r\n\r\n")
                if not head.startswith(b"HTTP/1.1 101 ") or wire.ACCEPT not in head:
                    raise StreamError(f"not upgraded: {head!r}")
                compressed = wire.compression_taken(head)
                stream = one.channel.deflated if compressed else one.channel.plain
                one.expected, one.ends = stream.data, stream.ends
                if subscribe:
                    self.subscribe(one)
                one.socket.setblocking(False)
                self.subscribers[one.socket.fileno()] = one
                self.epoll.register(one.socket, select.EPOLLIN)
                if rest:
                    self._take(one, rest)
            self._poll(0)

    def subscribe(self, one: Subscriber) -> None:
        """Name the subscriber's channel."""
        one.receive = self.dialect.subscribe(one.socket, one.channel.name)

    def expect(self, subscriber: Subscriber, messages: int, *, closed: bool = False) -> None:
        """Let :meth:`run` wait until the subscriber has got its first ``messages``."""
        target = subscriber.ends[messages - 1] + closed  # the close counts as one byte more
        self.unmet += (subscriber.position < target) - (subscriber.position < subscriber.target)
        subscriber.target = target

    def _advance(self, one: Subscriber, count: int) -> None:
        position, one.position = one.position, one.position + count
        if position < one.target <= one.position:
            self.unmet -= 1

    def _take(self, one: Subscriber, data: bytes) -> None:
        """Take what is not simply the next piece of the messages: control frames, or an end."""
        data = one.rest + data
        one.rest = b""
        while data:
            if data[0] in {0x88, 0x89, 0x8A}:
                end = 2 + data[1] if len(data) > 1 else 2
                if len(data) < end:
                    one.rest = data
                    return
                if self._control(one, data[0] & 0xF, data[2:end]):
                    return
                data = data[end:]
                continue
            wanted = one.expected[one.position : one.position + len(data)]
            differs = (i for i, byte in enumerate(wanted) if byte != data[i])
            same = next(differs, len(wanted))
            if not same:
                raise StreamError(f"{one.channel.name}: {data[:80]!r} instead of {wanted[:80]!r}")
            self._advance(one, same)
            data = data[same:]

    def _control(self, one: Subscriber, opcode: int, payload: bytes) -> bool:
        if opcode == 0x9:
            one.socket.send(wire.client_frame(0xA, payload))
        if opcode != 0x8:
            return False
        if payload != wire.CLOSE_1000 or one.position != len(one.expected):
            raise StreamError(f"{one.channel.name}: closed with {payload!r} at byte {one.position}")
        self._advance(one, 1)  # the close counts as one byte more
        one.socket.send(wire.client_frame(0x8, payload))
        self.leave(one)
        return True

    def leave(self, one: Subscriber, *, politely: bool = False) -> None:
        """Close a subscriber's connection, with a close frame or without a word."""
        if politely:
            one.socket.send(wire.client_frame(0x8, wire.CLOSE_1000))
        del self.subscribers[one.socket.fileno()]
        one.socket.close()

    # The loop.

    def _poll(self, timeout: float, *, latencies: bool = False) -> bool:
        """Handle what there is within ``timeout`` seconds; return whether there was anything."""
        events = self.epoll.poll(timeout, 4096)
        subscribers = self.subscribers
        size = self.read_size
        for descriptor, _ in events:
            one = subscribers.get(descriptor)
            if one is None:
                self._publisher_event()
                continue
            data = one.receive(size)
            position = one.position
            if data and one.expected.startswith(data, position) and not one.rest:
                one.position = end = position + len(data)
                if position < one.target <= end:
                    self.unmet -= 1
            elif data:
                self._take(one, data)
            else:
                raise StreamError(f"{one.channel.name}: the server vanished at byte {one.position}")
            if latencies:
                now, end = time.perf_counter(), one.position
                while one.count < len(one.ends) and one.ends[one.count] <= end:
                    self.latencies.append(now - one.channel.sent_at[one.count])
                    one.count += 1
        return bool(events)

    def run(
        self,
        schedule: Iterable[tuple[float, Channel, bytes]] = (),
        *,
        latencies: bool = False,
        sleeps: bool = False,
    ) -> None:
        """Publish what is due (seconds from now), and read until every target is reached.

        One that ``sleeps`` waits in epoll for the next bytes: for use where others share its core.
        """
        due = deque(schedule)
        start = moved = now = time.perf_counter()
        # A server that sends to a sleeping reader pays for waking it, and the sender's time is what
        # is measured: so this one never waits in epoll. It takes naps by its own clock, or
        # none where it takes the time.
        while self.unmet or due or self.outgoing or self.answers > 0:
            while due and due[0][0] <= now - start:
                _, channel, data = due.popleft()
                channel.sent_at.append(time.perf_counter())
                self.publish(data)
            wait = 0.0
            if sleeps:
                wait = max(0.0, due[0][0] - (time.perf_counter() - start)) if due else 0.1
            some = self._poll(wait, latencies=latencies)
            if not some and not latencies:
                time.sleep(NAP_S)
            before, now = now, time.perf_counter()
            if some or due:
                moved = now
            elif now - moved > STALL_S:
                raise StreamError(f"{self.unmet} subscribers still wait after {STALL_S:g} s")
            if not some:
                self.idle_s += now - before

    def rest(self, share: float = 0.2) -> None:
        """Read on until the server uses less than this share of a core over half a second."""
        for _ in range(120):
            before, until = cpu_seconds(self.pid), time.perf_counter() + 0.5
            while (left := until - time.perf_counter()) > 0:
                self._poll(left)
            if cpu_seconds(self.pid) - before < share * 0.5:
                return
        raise StreamError("the server does not come to rest")

    def mark(self) -> None:
        """Note the times at which a measurement begins and ends."""
        times = (cpu_seconds(self.pid), time.perf_counter(), self.idle_s)
        self._marked.append(times)

    def result(self, deliveries: int, **more: float) -> Result:
        """Return the differences between the two marks."""
        (cpu, wall, idle), (cpu_end, wall_end, idle_end) = self._marked
        return {
            "deliveries": deliveries,
            "cpu_s": cpu_end - cpu,
            "wall_s": wall_end - wall,
            "load_share": 1 - (idle_end - idle) / (wall_end - wall),
            **more,
        }

    def finish(self, channels: Iterable[Channel]) -> None:
        """End the channels, and see that every subscriber gets that and a close with 1000."""
        if not self.dialect.finishes:
            return
        for one in self.subscribers.values():
            self.expect(one, len(one.ends), closed=True)
        self.publish(self.dialect.joined(channel.published[-1] for channel in channels))
        self.run()
