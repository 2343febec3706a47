"""The relay's TLS port: what fails before a WebSocket is there."""

from __future__ import annotations

import re
import socket
import ssl
from pathlib import Path

import pytest
import requests
import trustme
from websockets.sync.client import connect

from monitor.transport.tls_server import MOST_HANDSHAKES
from tests.ports import free_port
from tests.relay.conftest import Relay, StartRelay, everything
from tests.relay.test_hostile import open_descriptors
from tests.waiting import LIMIT_S, wait_for

pytestmark = pytest.mark.integration_test


class Encrypted:
    """A relay with TLS, and its metrics."""

    def __init__(self, start_relay: StartRelay, folder: Path) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost")
        certificate.private_key_pem.write_to_path(folder / "key.pem")
        certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        self.trust = ssl.create_default_context()
        authority.configure_trust(self.trust)
        self.api_port = free_port()
        self.relay: Relay = start_relay(
            tls={"certificate": str(folder / "cert.pem"), "key": str(folder / "key.pem")},
            sections={"api": {"uri": ["127.0.0.1", self.api_port]}},
        )

    def read(self, channel: str) -> tuple[list[str], int | None]:
        url = f"wss://localhost:{self.relay.websocket_port}/"
        with connect(url, ssl=self.trust, open_timeout=LIMIT_S, proxy=None) as client:
            client.send(channel)
            return everything(client)

    def say(self, data: bytes = b"") -> socket.socket:
        peer = socket.create_connection(("127.0.0.1", self.relay.websocket_port), LIMIT_S)
        peer.sendall(data)
        return peer

    def refused(self, reason: str) -> int:
        url = f"http://127.0.0.1:{self.api_port}/metrics"
        text = requests.get(url, timeout=LIMIT_S).text
        found = re.search(rf'relay_rejected_total{{reason="{reason}"}} (\d+)', text)
        return 0 if found is None else int(found[1])

    def lines(self, text: str) -> int:
        return len(re.findall(rf"\[WARNING\] .*{text}", self.relay.daemon.log))


@pytest.fixture
def encrypted(start_relay: StartRelay, tmp_path: Path) -> Encrypted:
    return Encrypted(start_relay, tmp_path)


def test_handshakes_that_fail_are_counted_and_their_lines_limited(encrypted: Encrypted) -> None:
    before = open_descriptors(encrypted.relay.daemon.pid)
    for _ in range(30):
        encrypted.say(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").close()
        encrypted.say(b"\xff" * 100).close()
        encrypted.say().close()
    wait_for(lambda: encrypted.refused("tls-plain") == 30, "plain HTTP")
    wait_for(lambda: encrypted.refused("tls") == 30, "other bytes")
    wait_for(lambda: encrypted.refused("tls-silent") == 30, "who said nothing")
    assert encrypted.lines("refused 127.0.0.1:.*plain HTTP where TLS is spoken") == 5
    assert encrypted.lines("refused 127.0.0.1:.*the TLS handshake failed: ") == 5
    assert encrypted.lines("refused") == 10
    with encrypted.trust.wrap_socket(encrypted.say(), server_hostname="localhost") as peer:
        peer.sendall(b"no HTTP\r\n\r\n")
        assert peer.recv(1) == b""
    encrypted.relay.daemon.wait_log("invalid WebSocket from 127.0.0.1:")
    encrypted.relay.broker.send("c", "FINISHED")
    assert encrypted.read("c")[1] == 1000
    wait_for(lambda: open_descriptors(encrypted.relay.daemon.pid) <= before, "descriptors")


def test_clients_are_served_beside_more_silent_and_slow_ones_than_there_may_be(
    encrypted: Encrypted,
) -> None:
    relay = encrypted.relay
    for number in range(500):
        relay.broker.task("c", number)
    relay.broker.send("c", "FINISHED")
    peers = [
        encrypted.say(data)
        for _ in range(MOST_HANDSHAKES // 2 + 50)
        for data in (b"", b"\x16\x03\x01\x02\x00\x01")
    ]
    for _ in range(5):
        got, code = encrypted.read("c")
        assert (len(got), code) == (501, 1000)
    assert relay.daemon.stop() == 0
    for peer in peers:
        peer.close()
