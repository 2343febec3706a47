"""Peers that never read, vanish, flood or send garbage: a bounded cost, and theirs alone."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trustme
import zmq
import zmq.auth
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.ports import free_port
from tests.relay.broker import Broker
from tests.relay.conftest import Relay, StartRelay, everything
from tests.servers.daemon import StartDaemon
from tests.waiting import wait_for

pytestmark = pytest.mark.integration_test

KILO = 1024
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def resident_kilobytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"Rss:\s+(\d+) kB", status)
    assert found
    return int(found[1])


def open_descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def complaints(relay: Relay) -> list[str]:
    """Return the relay's own warnings (the loop's debug mode has some, too)."""
    lines = relay.daemon.log.splitlines()
    return [line for line in lines if "[WARNING]" in line and "[monitor.relay" in line]


def drain_frames(peer: socket.socket) -> tuple[int, int | None]:
    """Read to the end; return how many text frames came, and the close code."""
    buffer, texts = b"", 0
    while True:
        try:
            data = peer.recv(1 << 20)
        except OSError:
            data = b""
        buffer += data
        while len(buffer) >= 2:
            opcode, size, head = buffer[0] & 15, buffer[1] & 127, 2
            if size == 126:
                if len(buffer) < 4:
                    break
                size, head = struct.unpack(">H", buffer[2:4])[0], 4
            if len(buffer) < head + size:
                break
            payload, buffer = buffer[head : head + size], buffer[head + size :]
            if opcode == 1:
                texts += 1
            elif opcode == 8:
                return texts, struct.unpack(">H", payload[:2])[0]
        if not data:
            return texts, None


def flood(relay: Relay, channel: str, count: int, size: int = 1000) -> None:
    for _ in range(count):
        relay.broker.send(channel, "TASK", "x" * size, "COMPLETED")


def test_a_client_that_never_reads_is_closed_and_costs_only_its_buffers(
    start_relay: StartRelay,
) -> None:
    relay = start_relay(client_stall=1, max_history_bytes=8 * KILO * KILO)
    good = relay.client("c")
    reading = ThreadPoolExecutor(1).submit(everything, good)
    stuck = relay.raw_client("c", receive_buffer=4096)
    relay.wait_subscribed("c", 2)
    flood(relay, "c", 6000)
    relay.daemon.wait_log("read nothing for")
    # It gets what was on its way, and a code that means: come back.
    texts, code = drain_frames(stuck)
    assert 0 < texts < 6000
    assert code == 1013
    relay.broker.send("c", "FINISHED")
    got, code = reading.result(30)
    assert (len(got), code) == (6001, 1000)
    assert resident_kilobytes(relay.daemon.pid) < 150 * KILO


def test_a_slow_client_that_reads_gets_everything(start_relay: StartRelay) -> None:
    relay = start_relay(client_stall=2)
    slow = relay.raw_client("c", receive_buffer=4096)
    relay.wait_subscribed("c")
    flood(relay, "c", 4000)
    relay.broker.send("c", "FINISHED")
    relay.daemon.wait_log("channel c finished")
    assert drain_frames(slow) == (4001, 1000)


def test_a_client_outrun_by_the_history_is_told(start_relay: StartRelay) -> None:
    relay = start_relay(max_messages=100)
    slow = relay.raw_client("c", receive_buffer=4096)
    relay.wait_subscribed("c")
    flood(relay, "c", 10_000)
    relay.broker.send("c", "FINISHED")
    relay.daemon.wait_log("channel c finished")
    texts, code = drain_frames(slow)
    assert texts < 10_001
    assert code == 1013
    relay.daemon.wait_log("too slow")


def test_clients_that_vanish_leave_nothing(start_relay: StartRelay) -> None:
    relay = start_relay()
    before = open_descriptors(relay.daemon.pid)
    for round_number in range(3):
        peers = [relay.raw_client(f"silent{n}") for n in range(200)]
        wait_for(lambda: open_descriptors(relay.daemon.pid) >= before + 200, "200 clients")
        for peer in peers:
            # A reset, as from a machine that lost its power and came back.
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
        wait_for(
            lambda: open_descriptors(relay.daemon.pid) <= before, f"descriptors, {round_number}"
        )
    wait_for(
        lambda: relay.daemon.notices("STATUS")[-1].startswith("relay: 0 clients, 0 channels"), "0"
    )


def test_garbage_instead_of_a_handshake_is_one_line_each_and_limited(
    start_relay: StartRelay,
) -> None:
    relay = start_relay()
    before = open_descriptors(relay.daemon.pid)
    for number in range(300):
        with socket.create_connection(("127.0.0.1", relay.websocket_port)) as peer:
            peer.sendall(
                (b"\x16\x03\x01\x02", b"\xff" * 5000, b"POST / HTTP/1.1\r\n\r\n")[number % 3]
            )
    wait_for(lambda: open_descriptors(relay.daemon.pid) <= before, "descriptors are back")
    relay.broker.send("c", "FINISHED")
    assert everything(relay.client("c"))[1] == 1000
    assert 5 <= len(complaints(relay)) < 10


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (b"POST / HTTP/1.1\r\n\r\n", "POST"),
        (b"\x16\x03\x01\x02\r\n", "HTTP request"),
        (UPGRADE + b"\xff" * 50, "opcode"),
    ],
    ids=["another method", "TLS", "no frames"],
)
def test_what_is_no_websocket_is_one_line(relay: Relay, said: bytes, problem: str) -> None:
    with socket.create_connection(("127.0.0.1", relay.websocket_port), 20) as peer:
        peer.sendall(said)
        while peer.recv(4096):
            pass
    assert problem in relay.daemon.wait_log("invalid WebSocket from ")
    # A client that only knocks, as load balancers do, is not worth one.
    socket.create_connection(("127.0.0.1", relay.websocket_port), 20).close()
    relay.broker.send("c", "FINISHED")
    assert everything(relay.client("c"))[1] == 1000
    assert len(complaints(relay)) == 1


@pytest.mark.parametrize(
    "said",
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\xff" * 64, b"hello\r\n"],
    ids=["plain HTTP", "bytes", "text"],
)
def test_what_is_no_zeromq_is_one_line(relay: Relay, said: bytes) -> None:
    with socket.create_connection(("127.0.0.1", relay.zeromq_port), 20) as peer:
        peer.sendall(said)
    relay.daemon.wait_log("refused a ZeroMQ peer: incompatible protocol or security mechanism")
    relay.broker.send("c", "FINISHED")
    assert everything(relay.client("c"))[1] == 1000
    assert len(complaints(relay)) == 1


def is_dropped(peer: socket.socket) -> bool:
    try:
        return peer.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_a_host_with_most_clients_makes_room_for_others(start_relay: StartRelay) -> None:
    relay = start_relay(max_clients=4)
    here = ("127.0.0.1", relay.websocket_port)

    def other(channel: str) -> ClientConnection:
        return relay.client(
            channel, sock=socket.create_connection(here, 60, source_address=("127.0.0.2", 0))
        )

    clients = [relay.client("c") for _ in range(4)]
    relay.wait_subscribed("c", 4)
    with contextlib.ExitStack() as stack:
        # Connections without a handshake are not clients, and take nobody's place. The oldest are
        # dropped, so that there are 256.
        silent = [stack.enter_context(socket.create_connection(here, 60)) for _ in range(300)]
        for peer in silent:
            peer.setblocking(False)
        wait_for(lambda: list(map(is_dropped, silent)) == [True] * 44 + [False] * 256, "44 to go")
        clients += [other("c"), other("c")]
        for refused in (relay.client, other):
            with pytest.raises(InvalidStatus, match="503"):
                refused("c")
        # The newest made room.
        for client in clients[2:4]:
            assert everything(client)[1] == 1013
        relay.wait_subscribed("c", 6)
        relay.broker.send("c", "FINISHED")
        assert [everything(client)[1] for client in clients[:2] + clients[4:]] == [1000] * 4


def test_a_flood_of_new_channels_is_bounded(start_relay: StartRelay) -> None:
    relay = start_relay(max_history_bytes=2 * KILO * KILO)
    # The first flood warms up what the process keeps for its own use.
    for part in range(2):
        for number in range(30_000):
            relay.broker.send(f"channel-{part}-{number}", "STARTED")
        relay.broker.send(f"last-{part}", "FINISHED")
        assert everything(relay.client(f"last-{part}"))[1] == 1000
        if part == 0:
            before = resident_kilobytes(relay.daemon.pid)
    assert resident_kilobytes(relay.daemon.pid) < before + 10 * KILO


def test_a_flood_of_messages_does_not_stop_the_others(start_relay: StartRelay) -> None:
    relay = start_relay(max_messages=1000)
    good = relay.client("good")
    relay.wait_subscribed("good")
    other = relay.another_broker()
    stop = threading.Event()

    def rage() -> None:
        while not stop.is_set():
            relay.broker.send("flood", "TASK", "x", "COMPLETED")

    thread = threading.Thread(target=rage)
    thread.start()
    try:
        for number in range(50):
            other.task("good", number)
            assert f"t{number}" in str(good.recv(timeout=60))
    finally:
        stop.set()
        thread.join()


def test_tls_with_certificates_that_reload(start_relay: StartRelay, tmp_path: Path) -> None:
    def issue() -> trustme.CA:
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost")
        (tmp_path / "key.pem").write_bytes(certificate.private_key_pem.bytes())
        (tmp_path / "cert.pem").write_bytes(
            b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
        )
        return authority

    def subscribe(authority: trustme.CA) -> tuple[list[str], int | None]:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        url = f"wss://localhost:{relay.websocket_port}/"
        with connect(url, ssl=context, open_timeout=60) as client:
            client.send("c")
            return everything(client)

    first = issue()
    files = {"certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    relay = start_relay(tls=files)
    for number in range(3000):
        relay.broker.task("c", number)
    relay.broker.send("c", "FINISHED")
    got, code = subscribe(first)
    assert (len(got), code) == (3001, 1000)
    second = issue()
    relay.daemon.reload()
    assert subscribe(second)[1] == 1000
    with pytest.raises(ssl.SSLCertVerificationError):
        subscribe(first)
    # Files that change are picked up without a reload, as soon as they fit together.
    key = tmp_path / "key.pem"
    good = key.read_bytes()
    key.write_bytes(trustme.CA().issue_cert("localhost").private_key_pem.bytes())
    relay.daemon.wait_log("relay.tls: cannot use")
    assert subscribe(second)[1] == 1000
    key.write_bytes(good)
    relay.daemon.wait_log("relay.tls: the new files can be used")
    third = issue()
    seen = relay.daemon.log.count("using the new certificate")
    wait_for(lambda: relay.daemon.log.count("using the new certificate") > seen, "the third one")
    assert subscribe(third)[1] == 1000


def test_curve_lets_in_only_whom_it_knows(start_daemon: StartDaemon, tmp_path: Path) -> None:
    keys, allowed = tmp_path / "keys", tmp_path / "allowed"
    keys.mkdir()
    allowed.mkdir()
    for name in ("relay", "broker", "stranger"):
        zmq.auth.create_certificates(keys, name)
    (keys / "broker.key").rename(allowed / "broker.key")
    server, _ = zmq.auth.load_certificate(keys / "relay.key")

    def use(name: str) -> Any:
        public, secret = zmq.auth.load_certificate(keys / f"{name}.key_secret")
        assert secret is not None

        def prepare(peer: zmq.Socket[bytes]) -> None:
            peer.setsockopt(zmq.CURVE_SERVERKEY, server)
            peer.setsockopt(zmq.CURVE_PUBLICKEY, public)
            peer.setsockopt(zmq.CURVE_SECRETKEY, secret)

        return prepare

    websocket_port, zeromq_port = free_port(), free_port()
    daemon = start_daemon(
        {
            "websocket_uri": ["127.0.0.1", websocket_port],
            "zeromq_uri": ["127.0.0.1", zeromq_port],
            "relay": {
                "curve": {
                    "secret_key_file": str(keys / "relay.key_secret"),
                    "public_keys_dir": str(allowed),
                }
            },
        }
    ).wait_ready()
    uri = f"tcp://127.0.0.1:{zeromq_port}"
    stranger = Broker(uri, prepare=use("stranger"))
    assert stranger.refused
    daemon.wait_log("its key is not allowed")
    broker = Broker(uri, prepare=use("broker"))
    assert not broker.refused
    broker.send("c", "FINISHED")
    with connect(f"ws://127.0.0.1:{websocket_port}/") as client:
        client.send("c")
        assert everything(client) == (['{"command": "FINISHED"}'], 1000)
    # Connections that never show a key are few.
    with contextlib.ExitStack() as stack:
        for _ in range(400):
            silent = socket.create_connection(
                ("127.0.0.1", zeromq_port), 60, source_address=("127.0.0.2", 0)
            )
            stack.enter_context(silent)
        wait_for(
            lambda: 256 < len(list(Path(f"/proc/{daemon.pid}/fd").iterdir())) < 330,
            "some are closed",
        )
        daemon.wait_log("a ZeroMQ connection of 127.0.0.2: too many that say nothing")
        Broker(uri, prepare=use("broker")).close()
    # A key that is allowed later is let in after a reload.
    (keys / "stranger.key").rename(allowed / "stranger.key")
    daemon.reload()
    welcome = Broker(uri, prepare=use("stranger"))
    assert not welcome.refused
    for peer in (stranger, broker, welcome):
        peer.close()
