"""Brokers of ZMTP 1.0 and 2.0: nothing is lost, and they count as brokers."""

from __future__ import annotations

import json
import random
import socket

import pytest

from tests.relay.conftest import Relay, StartRelay, everything
from tests.relay.old_peers import OldPeer

pytestmark = pytest.mark.integration_test

BURST = [
    [b"c", b"STARTED"],
    [b"c", b"TASK", b"t1", b"COMPLETED"],
    [b"c", b"PROGRESS", b"50"],
    [b"c", b"TASK", b"t2", b"COMPLETED"],
    [b"c", b"ENDED"],
    [b"c", b"FINISHED"],
]
KEYS = ("command", "task_id", "task_state")


def texts(messages: list[list[bytes]]) -> list[str]:
    return [
        json.dumps(dict(zip(KEYS, (frame.decode() for frame in message[1:]), strict=False)))
        for message in messages
    ]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("identity", [b"", b"IDENTITY", b"c", b"STARTED", b"\xff\x80"])
def test_a_burst_of_an_old_peer_arrives_whole(relay: Relay, version: int, identity: bytes) -> None:
    peer = OldPeer(relay.zeromq_port, version=version, identity=identity)
    peer.send(*BURST)
    assert everything(relay.client("c")) == (texts(BURST), 1000)
    # The broker of the fixture, and this one.
    relay.daemon.wait_log("a ZeroMQ peer connected, 2 now")
    peer.close()
    relay.daemon.wait_log("a ZeroMQ peer disconnected, 1 now")
    assert "refused a ZeroMQ peer" not in relay.daemon.log
    assert relay.daemon.stop() == 0


@pytest.mark.parametrize("version", [1, 2])
def test_old_and_new_peers_at_once_lose_nothing(start_relay: StartRelay, version: int) -> None:
    relay = start_relay(max_messages=100_000)
    seed = random.Random(version)
    old = [
        OldPeer(relay.zeromq_port, version=version, identity=name)
        for name in (b"", b"", b"PROGRESS", b"TASK")
    ]
    expected: dict[str, list[list[bytes]]] = {str(number): [] for number in range(len(old) + 1)}
    for step in range(300):
        number = seed.randrange(len(old) + 1)
        channel = str(number).encode()
        words = [b"%d" % step, b"COMPLETED"]
        message = seed.choice(
            [[], [b"STARTED"], [b"PROGRESS", *words[:1]], [b"TASK", *words], [b"MORE", *words]]
        )
        message = [channel, *message]
        if number == len(old):
            relay.broker.raw(message)
        else:
            # A message without a command is dropped, and takes no other with it.
            old[number].send(message)
        if len(message) > 1:
            expected[channel.decode()].append(message)
    for number, (name, messages) in enumerate(expected.items()):
        messages.append([name.encode(), b"FINISHED"])
        if number == len(old):
            relay.broker.raw(messages[-1])
        else:
            old[number].send(messages[-1])
    for name, messages in expected.items():
        assert everything(relay.client(name)) == (texts(messages), 1000)
    for peer in old:
        peer.close()
    relay.daemon.wait_log("a ZeroMQ peer disconnected, 1 now")


def test_a_gap_is_told_when_an_old_broker_is_lost(relay: Relay) -> None:
    peer = OldPeer(relay.zeromq_port, version=2, identity=b"old")
    peer.send(*BURST[:3])
    relay.daemon.wait_log("a ZeroMQ peer connected, 2 now")
    client = relay.client(None, subprotocols=["recodex.monitor.v2"])
    client.recv(timeout=60)
    client.send('{"type": "subscribe", "channel": "c"}')
    while json.loads(client.recv(timeout=60))["type"] != "messages":
        pass
    peer.close()
    assert json.loads(client.recv(timeout=60))["state"] == "lost"


def test_a_subscription_in_the_handshakes_segment_is_answered(relay: Relay) -> None:
    relay.broker.send("c", "STARTED")
    relay.broker.send("c", "ENDED")
    relay.wait_received(2)
    request = b'{"type": "subscribe", "channel": "c"}'
    with socket.create_connection(("127.0.0.1", relay.websocket_port), timeout=60) as peer:
        peer.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Protocol: recodex.monitor.v2\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            + bytes((0x81, 0x80 | len(request)))
            + b"\0\0\0\0"
            + request
        )
        got = b""
        while b'"command": "ENDED"' not in got:
            data = peer.recv(4096)
            assert data, got
            got += data
        assert b'"type":"subscribed"' in got
