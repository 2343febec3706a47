"""Brokers by other libraries than libzmq: nothing is lost, and they count as brokers."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable

import pytest
from websockets.sync.client import ClientConnection

from tests.relay.conftest import Relay, StartRelay, everything
from tests.relay.other_clients import go, java, node
from tests.relay.test_old_peers import texts
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.integration_test

Find = Callable[..., str]

LIBRARIES: dict[str, Callable[[Find], list[str]]] = {
    "JeroMQ": lambda find: java(find, "Send"),
    "zeromq.js": lambda find: node(find, "send"),
    "Go's zmq4": lambda find: go(find, "send"),
}


class LibraryBroker:
    """A program that sends messages over one DEALER."""

    def __init__(self, command: list[str], port: int, identity: str) -> None:
        self._process = subprocess.Popen(
            [*command, f"tcp://127.0.0.1:{port}", identity],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def send(self, messages: list[list[bytes]]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"".join(b"\t".join(each) + b"\n" for each in messages))
        self._process.stdin.flush()

    def leave(self) -> None:
        """End it after what it has to send."""
        _, said = self._process.communicate(timeout=LIMIT_S)
        assert self._process.returncode == 0, said.decode()

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate(timeout=LIMIT_S)


@pytest.fixture
def start_broker(program: Find) -> object:
    """Return a function that starts a broker by a library."""
    started: list[LibraryBroker] = []

    def start(library: str, relay: Relay, identity: str) -> LibraryBroker:
        started.append(LibraryBroker(LIBRARIES[library](program), relay.zeromq_port, identity))
        return started[-1]

    yield start
    for broker in started:
        broker.kill()


StartBroker = Callable[[str, Relay, str], LibraryBroker]


def job(seed: int, channel: bytes) -> list[list[bytes]]:
    """Return messages of all sizes."""
    choose = random.Random(seed)
    words = [b"TASK", b"PROGRESS", b"STARTED", b"c", b"\xc4\x9b" * 100]
    messages = [[channel, *choose.choices(words, k=choose.randrange(1, 4))] for _ in range(2000)]
    return [*messages, [channel, b"FINISHED"]]


@pytest.mark.parametrize("identity", ["", "worker", "TASK"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_broker_of_a_library_loses_nothing_and_counts(
    library: str, identity: str, start_relay: StartRelay, start_broker: StartBroker
) -> None:
    relay = start_relay()
    broker = start_broker(library, relay, identity)
    messages = job(len(identity), b"c")
    client = relay.client("c")
    broker.send(messages)
    assert everything(client) == (texts(messages), 1000)
    relay.daemon.wait_log("a ZeroMQ peer connected, 2 now")
    broker.leave()
    relay.daemon.wait_log("a ZeroMQ peer disconnected, 1 now")
    assert "refused a ZeroMQ peer" not in relay.daemon.log


def watcher_of(relay: Relay, channel: str) -> ClientConnection:
    watcher = relay.client(None, subprotocols=["recodex.monitor.v2"])
    watcher.send(json.dumps({"type": "subscribe", "channel": channel}))
    return watcher


def wait_feed(watcher: ClientConnection, **expected: object) -> None:
    while not expected.items() <= json.loads(watcher.recv(timeout=LIMIT_S)).items():
        pass


def test_brokers_of_all_libraries_at_once_lose_nothing(
    relay: Relay, start_broker: StartBroker
) -> None:
    watcher = watcher_of(relay, "none")
    brokers = {
        f"{library} {identity}".encode(): start_broker(library, relay, identity)
        for library in LIBRARIES
        for identity in ("", f"broker of {library}")
    }
    jobs = {channel: job(seed, channel) for seed, channel in enumerate(brokers)}
    clients = {channel: relay.client(channel.decode()) for channel in brokers}
    for number in range(0, 2001, 100):
        for channel, broker in brokers.items():
            broker.send(jobs[channel][number : number + 100])
        for frames in job(number, b"libzmq")[:100]:
            relay.broker.raw(frames)
    for channel, client in clients.items():
        assert everything(client) == (texts(jobs[channel]), 1000)
    wait_feed(watcher, type="feed", brokers=7)
    for broker in brokers.values():
        broker.leave()
    wait_feed(watcher, type="feed", brokers=1)


def test_a_gap_is_told_when_a_broker_of_a_library_is_killed(
    relay: Relay, start_broker: StartBroker
) -> None:
    for library in LIBRARIES:
        channel = library.encode()
        broker = start_broker(library, relay, "worker")
        watcher = watcher_of(relay, library)
        broker.send([[channel, b"STARTED"], [channel, b"PROGRESS", b"50"]])
        while "PROGRESS" not in str(watcher.recv(timeout=LIMIT_S)):
            pass
        broker.kill()
        wait_feed(watcher, type="feed", state="lost")
