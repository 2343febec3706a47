"""The recovering protocol beside the old one, and 10,000 subscribers that lose the connection.

The same loads, checked message by message, with either protocol on one daemon after the
other; its CPU is what is compared. Then 10,000 subscribers of the recovering protocol are cut
off at once while messages go on, come back within the second that the close codes' table
gives them, and resume: how long until each has everything, once and in order.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import random
import select
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import relay_wire as wire
from benchmarks.process import (
    LOAD_CORE,
    cpu_seconds,
    free_ports,
    pinned,
    raise_descriptors,
    running,
)

__all__ = ["main"]

HERE = Path(__file__).parent
OLD, RECOVERING = "v1", "v2"
SUBPROTOCOL = "recodex.monitor.v2"
STALL_S = 30.0
# What a client of the close codes' table waits after a lost connection, and after a refusal.
AT_ONCE_S, BACK_OFF_S = (0.0, 1.0), (0.25, 0.5)
RESET = struct.pack("ii", 1, 0)


class StreamError(Exception):
    """A subscriber got something else than what was published."""


class Channel:
    """A channel's messages: as they are published, and their texts."""

    def __init__(self, number: int, messages: int) -> None:
        self.name = f"job_{number:05}"
        fields = [wire.task(number, index) for index in range(messages)]
        self.published = [wire.zmtp_message(self.name, one) for one in fields]
        self.tails = [b'"data":' + wire.text(one) + b"}" for one in fields]
        self.texts = [wire.text(one) for one in fields]
        # As several come in one: the texts with a comma after each, and where each begins.
        self.joined = b"".join(text + b"," for text in self.texts)
        self.begins = [0, *itertools.accumulate(len(text) + 1 for text in self.texts)]
        self.numbers = {begin: number for number, begin in enumerate(self.begins)}


class Subscriber:
    """One subscriber over all its connections, and how many messages it has."""

    def __init__(self, channel: Channel, protocol: str) -> None:
        self.channel = channel
        self.protocol = protocol
        self.seq = 0
        self.epoch = ""
        self.socket: socket.socket
        self.buffer = b""
        self.connected = False
        self.subscribed = False
        self.complete_at = 0.0

    def request(self) -> bytes:
        """Return what to send once the connection stands."""
        if self.protocol == OLD:
            return wire.subscription(self.channel.name)
        told: dict[str, object] = {"type": "subscribe", "channel": self.channel.name}
        if self.epoch:
            told["after"] = {"epoch": self.epoch, "seq": self.seq}
        payload = json.dumps(told).encode()
        if len(payload) < 126:
            return wire.client_frame(1, payload)
        return b"\x81\xfe" + struct.pack("!H", len(payload)) + bytes(4) + payload

    def take(self, data: bytes) -> None:
        """Check what came."""
        data = self.buffer + data
        place, size = 0, len(data)
        while size - place >= 2:
            length, begin = data[place + 1], place + 2
            if length == 126:
                if size - place < 4:
                    break
                length, begin = (data[place + 2] << 8) | data[place + 3], place + 4
            elif length == 127:
                if size - place < 10:
                    break
                length, begin = int.from_bytes(data[place + 2 : place + 10], "big"), place + 10
            if begin + length > size:
                break
            if data[place] == 0x81:
                self._message(data[begin : begin + length])
            elif data[place] == 0x88:
                raise StreamError(f"{self.channel.name}: closed: {data[begin : begin + length]!r}")
            place = begin + length
        self.buffer = data[place:]

    def _message(self, payload: bytes) -> None:
        if self.protocol == OLD:
            if payload != self.channel.texts[self.seq]:
                raise StreamError(f"{payload!r} instead of {self.channel.texts[self.seq]!r}")
            self.seq += 1
        elif payload.startswith(b'{"type":"message",'):
            if b'"seq":%d,' % (self.seq + 1) not in payload or not payload.endswith(
                self.channel.tails[self.seq]
            ):
                raise StreamError(f"{payload!r} as message {self.seq + 1}")
            self.seq += 1
        elif payload.startswith(b'{"type":"messages",'):
            self._messages(payload)
        elif payload.startswith(b'{"type":"subscribed",'):
            told = json.loads(payload)
            if self.epoch and not (told["recovered"] and told["seq"] == self.seq):
                raise StreamError(f"{payload!r} where {self.seq} messages were there")
            self.epoch, self.subscribed = told["epoch"], True

    def _messages(self, payload: bytes) -> None:
        head, _, rest = payload.partition(b'"data":[')
        channel, begin = self.channel, self.channel.begins[self.seq]
        # What must stand there, and whether it ends where a message does.
        after = channel.numbers.get(begin + len(rest) - 1)
        if (
            b'"seq":%d,' % (self.seq + 1) not in head
            or after is None
            or not channel.joined.startswith(rest[:-2], begin)
        ):
            raise StreamError(f"{payload[:200]!r} as messages from {self.seq + 1}")
        self.seq = after


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
            one.socket.send(one.request())
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
        """Send messages, reading meanwhile what comes of them."""
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

    def rest(self) -> None:
        """Wait until the daemon is idle."""
        while True:
            before, until = cpu_seconds(self.pid), time.perf_counter() + 0.5
            while time.perf_counter() < until:
                self.turn(0.05)
            if cpu_seconds(self.pid) - before < 0.02:
                return


Result = dict[str, float]


def measured(
    load: Load, subscribers: Sequence[Subscriber], target: int, act: Callable[[], None]
) -> Result:
    """Return the daemon's CPU until all subscribers have ``target`` messages."""
    load.rest()
    before, had = cpu_seconds(load.pid), sum(one.seq for one in subscribers)
    act()
    load.until(lambda: all(one.seq >= target for one in subscribers))
    deliveries = sum(one.seq for one in subscribers) - had
    return {"cpu_s": cpu_seconds(load.pid) - before, "deliveries": deliveries}


def prepared(load: Load, protocol: str, channels: Sequence[Channel], each: int) -> list[Subscriber]:
    """Subscribe, with one message through each channel."""
    load.publish(b"".join(channel.published[0] for channel in channels))
    subscribers = [Subscriber(channel, protocol) for channel in channels for _ in range(each)]
    load.subscribe(subscribers, 1)
    return subscribers


def jobs(load: Load, protocol: str) -> Result:
    """1000 channels, a subscriber each, 200 messages as fast as they are taken."""
    channels = [Channel(number, 201) for number in range(1000)]
    subscribers = prepared(load, protocol, channels, 1)
    burst = b"".join(channel.published[i] for i in range(1, 201) for channel in channels)
    return measured(load, subscribers, 201, lambda: load.publish(burst))


def fan_out(load: Load, protocol: str) -> Result:
    """One channel, 1000 subscribers, 100 messages/s for 5 s."""
    channel = Channel(0, 501)
    subscribers = prepared(load, protocol, [channel], 1000)

    def act() -> None:
        began = time.perf_counter()
        for index in range(500):
            while time.perf_counter() - began < index / 100:
                load.turn(0.0005)
            load.publish(channel.published[index + 1])

    return measured(load, subscribers, 501, act)


def replay(load: Load, protocol: str) -> Result:
    """2000 messages in the history, 100 subscribers that come late; handshakes included."""
    channel = Channel(0, 2000)
    first = prepared(load, protocol, [channel], 1)
    load.publish(b"".join(channel.published[1:]))
    load.until(lambda: first[0].seq == 2000)
    late = [Subscriber(channel, protocol) for _ in range(100)]

    def act() -> None:
        for one in late:
            load.connect(one)

    return measured(load, late, 2000, act)


def steady(load: Load, protocol: str) -> Result:
    """1000 messages/s, in turn over 100 channels with a subscriber each, for 5 s."""
    channels = [Channel(number, 51) for number in range(100)]
    subscribers = prepared(load, protocol, channels, 1)

    def act() -> None:
        began = time.perf_counter()
        for index in range(5000):
            while time.perf_counter() - began < index / 1000:
                load.turn()
            load.publish(channels[index % 100].published[1 + index // 100])

    return measured(load, subscribers, 51, act)


def lost(load: Load, protocol: str) -> Result:
    """10,000 subscribers of 1000 channels lose the connection at once, and resume."""
    channels = [Channel(number, 30) for number in range(1000)]
    subscribers = prepared(load, protocol, channels, 10)
    for index in range(1, 20):
        load.publish(b"".join(channel.published[index] for channel in channels))
    load.until(lambda: all(one.seq >= 20 for one in subscribers))
    load.rest()
    cpu, began = cpu_seconds(load.pid), time.perf_counter()
    for one in subscribers:
        load.lose(one, AT_ONCE_S)
    # What is said while nobody listens.
    load.publish(b"".join(c.published[i] for i in range(20, 30) for c in channels))
    waiting = set(subscribers)

    def all_complete() -> bool:
        now = time.perf_counter()
        for one in [one for one in waiting if one.seq >= 30]:
            one.complete_at = now - began
            waiting.discard(one)
        return not waiting

    while not all_complete():
        for _ in range(20):
            load.turn(0.001)
        if time.perf_counter() - began > 60:
            raise StreamError(f"{len(waiting)} are not resumed after a minute")
    times = sorted(one.complete_at for one in subscribers)
    return {
        "p50_s": times[len(times) // 2],
        "p99_s": times[len(times) * 99 // 100],
        "all_s": times[-1],
        "refused": load.refusals,
        "cpu_s": cpu_seconds(load.pid) - cpu,
        "deliveries": 10 * len(subscribers),
    }


LOADS = {"jobs": jobs, "fan-out": fan_out, "replay": replay, "steady": steady, "lost": lost}


def one_run(name: str, protocol: str, *, history_file: bool) -> Result:
    """Start a daemon, put one load on it from the other core, and stop it."""
    with tempfile.TemporaryDirectory(prefix="relay-recovery-") as directory:
        websocket, publish = free_ports(2)
        config = Path(directory) / "config.yml"
        saving = "history.db" if history_file else "null"
        config.write_text(
            f'websocket_uri: ["127.0.0.1", {websocket}]\nzeromq_uri: ["127.0.0.1", {publish}]\n'
            f"logger: {{file: {directory}/monitor.log, level: info}}\n"
            f"relay: {{max_clients: 12000, history_file: {saving}}}\n",
            encoding="utf-8",
        )
        command = [sys.executable, str(HERE.parent / "main.py"), "-c", str(config)]
        with running(
            command, directory=Path(directory), environment={"STATE_DIRECTORY": directory}
        ) as server:
            load = [sys.executable, str(HERE / "relay_recovery.py"), "--load", name]
            load += ["--protocol", protocol, "--pid", str(server.pid)]
            load += ["--ports", str(websocket), str(publish)]
            done = subprocess.run(
                pinned(LOAD_CORE, load), stdout=subprocess.PIPE, check=False, timeout=200
            )
            if done.returncode:
                raise SystemExit(f"load {name} with {protocol} failed")
            result: Result = json.loads(done.stdout)
            return result


def main() -> None:
    """Read the command line, measure, print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--loads", nargs="+", choices=LOADS, default=list(LOADS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--history-file", action="store_true", help="save histories meanwhile")
    # How it starts itself, as the load of one run.
    parser.add_argument("--load", choices=LOADS, help=argparse.SUPPRESS)
    parser.add_argument("--protocol", choices=(OLD, RECOVERING), help=argparse.SUPPRESS)
    parser.add_argument("--pid", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--ports", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    raise_descriptors()
    if arguments.load:
        load = Load(arguments.pid, *arguments.ports)
        print(json.dumps(LOADS[arguments.load](load, arguments.protocol)))
        return
    print("| load | v1, CPU s per 100k deliveries | v2 | v2 / v1 |\n|---|---|---|---|", flush=True)
    for name in [name for name in arguments.loads if name != "lost"]:
        runs: dict[str, list[float]] = {OLD: [], RECOVERING: []}
        for _ in range(arguments.rounds):
            for protocol, values in runs.items():
                found = one_run(name, protocol, history_file=arguments.history_file)
                values.append(found["cpu_s"] / found["deliveries"] * 1e5)
        old, new = (statistics.median(values) for values in runs.values())
        print(f"| {name} | {old:.3g} | {new:.3g} | {new / old:.2f} |", flush=True)
    if "lost" in arguments.loads:
        print("\n10,000 subscribers cut off at once, resumed with all that was said meanwhile:")
        for _ in range(arguments.rounds):
            found = one_run("lost", RECOVERING, history_file=arguments.history_file)
            print(
                f"all after {found['all_s']:.2f} s (half after {found['p50_s']:.2f} s, 99 % after"
                f" {found['p99_s']:.2f} s), {found['refused']:.0f} refused on the way,"
                f" {found['cpu_s']:.2f} s of CPU",
                flush=True,
            )


if __name__ == "__main__":
    main()
