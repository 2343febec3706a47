"""What proxies, load balancers and pages of other origins meet at the relay's port."""

from __future__ import annotations

import http.client
import socket

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.relay.conftest import Relay, StartRelay, everything
from tests.relay.recovering import RecoveringClient
from tests.transport.test_proxies import TCP4, TCP6, version_2

pytestmark = pytest.mark.integration_test


def asked(relay: Relay, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", relay.websocket_port), timeout=60) as peer:
        for piece in (request[:3], request[3:]):
            peer.sendall(piece)
        answer = b""
        while data := peer.recv(4096):
            answer += data
        return answer


def test_a_health_check_gets_a_plain_answer_and_no_warning(start_relay: StartRelay) -> None:
    relay = start_relay(max_clients=1, trusted_proxies=["127.0.0.1"])
    # A check of TCP alone, by a proxy that would name its clients.
    for header in (version_2(0, b"", command=0), b"PROXY UNKNOWN\r\n", TCP4):
        with socket.create_connection(("127.0.0.1", relay.websocket_port), timeout=60) as peer:
            peer.sendall(header)
            peer.shutdown(socket.SHUT_WR)
            assert peer.recv(1) == b""
    for method in (b"GET", b"HEAD", b"OPTIONS"):
        for version in (b"HTTP/1.0", b"HTTP/1.1"):
            answer = asked(relay, b"%b / %b\r\nHost: x\r\n\r\n" % (method, version))
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert (body == b"") == (method == b"HEAD")
    assert asked(relay, b"HEAD / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert "invalid WebSocket from" not in relay.daemon.log
    # What is neither is still a fault, with one line.
    assert b"HTTP/1.1 200" not in asked(relay, b"DELETE / HTTP/1.1\r\n\r\n")
    relay.daemon.wait_log("invalid WebSocket from 127.0.0.1")
    relay.client("c")
    relay.wait_subscribed("c")
    assert asked(relay, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 503 ")


def test_a_trusted_proxy_names_the_client(start_relay: StartRelay) -> None:
    relay = start_relay(trusted_proxies=["127.0.0.1"], origins=["https://recodex.example"])
    for header, shown in (
        (b"PROXY TCP4 192.0.2.7 127.0.0.1 5 6\r\n", "192.0.2.7:5"),
        (TCP4, "192.0.2.7:5"),
        (TCP6, "[2001:db9::7]:5"),
    ):
        peer = socket.create_connection(("127.0.0.1", relay.websocket_port), timeout=60)
        peer.sendall(header)
        with connect("ws://x/", sock=peer, compression=None) as client:
            client.send(shown)
            relay.daemon.wait_log(f"{shown} subscribed to {shown}")
    forwarded = {"X-Forwarded-For": "203.0.113.1, 198.51.100.4"}
    relay.client("forwarded", additional_headers=forwarded)
    relay.daemon.wait_log("198.51.100.4:0 subscribed to forwarded")
    with pytest.raises(InvalidStatus):
        relay.client("x", origin="https://Evil.example", additional_headers=forwarded)
    relay.daemon.wait_log(
        "refused 198.51.100.4:0: the origin https://Evil.example is not in relay.origins"
    )
    # Behind its word is only what the client says.
    liar = socket.create_connection(("127.0.0.1", relay.websocket_port), timeout=60)
    liar.sendall(TCP4)
    with connect("ws://x/", sock=liar, compression=None, additional_headers=forwarded) as client:
        client.send("liar")
        relay.daemon.wait_log("192.0.2.7:5 subscribed to liar")
    assert asked(relay, b"PROXY nonsense\r\n") == b""
    relay.daemon.wait_log("invalid PROXY header from 127.0.0.1")


def test_nobody_else_names_the_client(relay: Relay) -> None:
    relay.client("c", additional_headers={"X-Forwarded-For": "192.0.2.7"})
    relay.daemon.wait_log("subscribed to c")
    assert "192.0.2.7" not in relay.daemon.log
    assert b"HTTP/1.1 101" not in asked(relay, b"PROXY TCP4 192.0.2.7 127.0.0.1 5 6\r\n\r\n")


def test_devices_without_a_page_can_be_allowed(start_relay: StartRelay) -> None:
    relay = start_relay(origins=["null", "file://", "HTTPS://Recodex.Example:443"])
    relay.broker.send("c", "FINISHED")
    for origin in ("null", "file://", "https://recodex.example", None):
        assert everything(relay.client("c", origin=origin))[1] == 1000


def test_the_ping_interval_is_a_setting(start_relay: StartRelay) -> None:
    relay = start_relay(ping_interval=2)
    peer = relay.raw_client("c")
    # Pings and nothing else, well before 20 s; the socket's own limit is 60 s.
    assert peer.recv(2) == b"\x89\x00"
    assert peer.recv(2) == b"\x89\x00"


@pytest.mark.parametrize("protocol", ["v1", "v2"])
def test_a_reader_of_a_channel_without_messages_ends_after_keep_idle(
    start_relay: StartRelay, protocol: str
) -> None:
    relay = start_relay(keep_idle=2)
    if protocol == "v1":
        assert everything(relay.client("nothing")) == ([], 1000)
        return
    client = RecoveringClient(relay)
    assert client.subscribe("nothing")["known"] is False
    end = client.receive()
    assert (end["type"], end["reason"], end["seq"]) == ("failed", "idle", 0)
    # The connection stays, for other channels.
    relay.broker.send("else", "FINISHED")
    assert client.subscribe("else")["channel"] == "else"


def test_a_reader_with_messages_outlives_its_first_silence(start_relay: StartRelay) -> None:
    relay = start_relay(keep_idle=3)
    client = relay.client("c")
    relay.wait_subscribed("c")
    relay.broker.send("c", "STARTED")
    assert client.recv(timeout=60) == '{"command": "STARTED"}'
    assert everything(client) == ([], 1000)


def test_the_web_servers_own_check_sees_the_daemon(relay: Relay) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", relay.websocket_port, timeout=60)
    connection.request("GET", "/ws")
    assert connection.getresponse().read() == b"This is a WebSocket server.\n"
    connection.request("GET", "/ws", b"x" * 20_000_000)
    assert connection.getresponse().read() == b"This is a WebSocket server.\n"
    connection.close()
