"""Which frames are one message, on a real ROUTER, whatever its peers send."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import pytest
import zmq
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from monitor.transport.incoming import Incoming
from tests.examples import examples

pytestmark = pytest.mark.integration_test

# What peers call themselves, even by a command; libzmq names the first.
NAMES = [b"", b"broker", b"br\xffk\xc3", b"a\0b", b"\xc3\xa9", b"PROGRESS", b"TASK"]
# A frame may hold a command, the name of its sender or of somebody else, or what libzmq makes up.
words = st.sampled_from([*NAMES, b"STARTED", b"FINISHED", b"\0abcd"])
others = st.binary(max_size=6)

frames = st.lists(words | others, max_size=7)
messages = st.builds(lambda first, rest: [first, *rest], st.binary(max_size=6), frames)


class Peers:
    """A ROUTER with a peer of each name, and what it reads of each."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.router = context.socket(zmq.ROUTER)
        port = self.router.bind_to_random_port("tcp://127.0.0.1")
        self.incoming = Incoming(self.router)
        self.sockets: list[zmq.Socket[bytes]] = []
        self.identities: list[bytes] = []
        for name in NAMES:
            socket = context.socket(zmq.DEALER)
            if name:
                socket.setsockopt(zmq.IDENTITY, name)
            socket.connect(f"tcp://127.0.0.1:{port}")
            socket.send(b"hello")
            self.identities += self.read(1, limit=10)
            self.sockets.append(socket)

    def read(self, count: int, *, limit: int) -> dict[bytes, list[list[bytes]]]:
        """Read this many messages, at most ``limit`` in a drain; return them by their sender."""
        found: dict[bytes, list[list[bytes]]] = defaultdict(list)
        while count > 0:
            assert self.router.poll(10_000), f"{count} more messages"
            self.incoming.empty = False
            while not self.incoming.empty:
                for identity, got, last in self.incoming.read(limit):
                    found[identity].append(list(got))
                    assert not last.more
                    count -= 1
        assert not count
        return found


@pytest.fixture(scope="module")
def peers() -> Iterator[Peers]:
    context = zmq.Context()
    yield Peers(context)
    context.destroy(linger=0)


# Where one fails it waits for what never comes: no shrinking.
@settings(max_examples=examples(300), deadline=None, phases=[Phase.generate])
@given(st.lists(st.tuples(st.sampled_from(range(len(NAMES))), messages)), st.integers(1, 10))
def test_messages_are_told_apart_whoever_sends_how_many_frames(
    peers: Peers, sent: list[tuple[int, list[bytes]]], limit: int
) -> None:
    expected: dict[bytes, list[list[bytes]]] = defaultdict(list)
    for number, message in sent:
        peers.sockets[number].send_multipart(message)
        expected[peers.identities[number]].append(message[:4])
    assert peers.read(len(sent), limit=limit) == expected


def test_messages_too_short_swallow_nothing_of_the_next(peers: Peers) -> None:
    task = [b"c", b"TASK", b"t1", b"COMPLETED"]
    sent = [
        [b"x"],
        task,
        [b"x"],
        [b"x"],
        [b"c", b"STARTED"],
        task[:3],
        task,
        task[:2],
        [b"x"],
        task,
    ]
    for number in range(len(NAMES)):
        for message in sent:
            peers.sockets[number].send_multipart(message)
    found = peers.read(len(sent) * len(NAMES), limit=500)
    assert found == dict.fromkeys(peers.identities, sent)
