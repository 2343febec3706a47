from __future__ import annotations

import contextlib
import logging
import math
import select
import socket
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from monitor.tokens import Role, TokenFile, create_token
from monitor.transport.frames import text_frame
from monitor.web.http import sockets as sockets_module
from monitor.web.http import websocket as websocket_module
from monitor.web.http.access import COOKIE
from monitor.web.http.websocket import WebSocket
from tests.waiting import LIMIT_S, wait_for
from tests.web.serving import serving

UPGRADE = b"GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n"

KEY = b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"


async def echo(connection: WebSocket) -> None:
    while True:
        await connection.send(await connection.receive())


async def flood(connection: WebSocket) -> None:
    await connection.receive()
    while True:
        await connection.send(b"x" * 60_000)


async def fail(connection: WebSocket) -> None:
    await connection.receive()
    raise RuntimeError("a defect")


async def ask_who(connection: WebSocket) -> None:
    await connection.send(connection.principal.name.encode())


def closed(client: ClientConnection) -> tuple[int | None, str | None]:
    with pytest.raises(ConnectionClosed):
        while True:
            client.recv(timeout=LIMIT_S)
    return client.close_code, client.close_reason


@contextlib.contextmanager
def refused(url: str, status: int, **options: Any) -> Iterator[None]:
    with pytest.raises(InvalidStatus) as caught, connect(url, **options):
        pass
    assert caught.value.response.status_code == status
    assert caught.value.response.headers["content-type"] == "application/problem+json"
    yield


def test_messages_of_every_size_and_kind_arrive_whole_and_in_order() -> None:
    with (
        serving(websockets={"/ws": echo}, max_message_bytes=2**20) as server,
        connect(f"{server.websocket_url}/ws") as client,
    ):
        for size in (0, 1, 125, 126, 65_535, 65_536, 2**20):
            client.send("é" * (size // 2))
            assert client.recv(timeout=LIMIT_S) == "é" * (size // 2)
        client.send(["frag", "men", "ted"])
        assert client.recv(timeout=LIMIT_S) == "fragmented"
        client.send(b"binary")
        assert client.recv(timeout=LIMIT_S) == "binary"
        for number in range(500):
            client.send(str(number))
        assert [client.recv(timeout=LIMIT_S) for _ in range(500)] == [str(n) for n in range(500)]
        assert client.ping().wait(LIMIT_S)


def test_a_message_over_the_limit_is_closed_with_1009_and_a_reason() -> None:
    with (
        serving(websockets={"/ws": echo}, max_message_bytes=1000) as server,
        connect(f"{server.websocket_url}/ws") as client,
    ):
        client.send(["x" * 600, "x" * 600])
        code, reason = closed(client)
        assert code == 1009
        assert reason


def test_a_handler_that_returns_closes_with_1000_and_one_that_fails_with_1011(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving(websockets={"/who": ask_who, "/fail": fail}) as server:
        with connect(f"{server.websocket_url}/who") as client:
            assert client.recv(timeout=LIMIT_S) == "anyone"
            assert closed(client)[0] == 1000
        with connect(f"{server.websocket_url}/fail") as client:
            client.send("go")
            assert closed(client) == (1011, "the server failed")
    errors = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert [r.getMessage() for r in errors] == [
        "serving a WebSocket failed: RuntimeError: a defect"
    ]
    assert errors[0].exc_info is None


def test_a_stop_closes_with_1001() -> None:
    with contextlib.ExitStack() as clients:
        with serving(websockets={"/ws": echo}) as server:
            client = clients.enter_context(connect(f"{server.websocket_url}/ws"))
            client.send("a")
            assert client.recv(timeout=LIMIT_S) == "a"
        assert closed(client) == (1001, "the server is stopping")


def test_where_nothing_is_and_where_a_page_of_another_site_comes_from() -> None:
    with serving(websockets={"/ws": echo}) as server:
        with refused(f"{server.websocket_url}/other", 404):
            pass
        with refused(f"{server.websocket_url}/ws", 403, origin="http://evil.example"):
            pass
        own = f"http://127.0.0.1:{server.port}"
        with connect(f"{server.websocket_url}/ws", origin=Origin(own)) as client:
            client.send("a")
            assert client.recv(timeout=LIMIT_S) == "a"


def test_a_plain_get_is_told_to_upgrade(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yml"
    token = create_token(file, "ops", Role.READER)
    bearer = {"authorization": f"Bearer {token}"}
    with (
        serving(websockets={"/ws": echo, "/live": echo}, tokens=TokenFile(file)) as server,
        requests.Session() as session,
    ):
        for path, headers in (
            ("/ws", {}),
            ("/live", {}),
            ("/ws", {"connection": "upgrade", "upgrade": "h2c"}),
            # What is left of a handshake by a proxy that passes on one header of the two.
            ("/ws", {"upgrade": "websocket"}),
        ):
            answer = session.get(server.url + path, headers=bearer | headers, timeout=LIMIT_S)
            assert answer.status_code == 426
            assert answer.headers["upgrade"] == "websocket"
            assert answer.headers["connection"] == "upgrade"
            assert answer.headers["content-type"] == "application/problem+json"
            problem = answer.json()
            assert problem["title"] == "Upgrade Required"
            assert problem["detail"].startswith("this is a WebSocket: ")
            assert "`Connection: Upgrade` and `Upgrade: websocket`" in problem["detail"]
        head = session.head(f"{server.url}/ws", headers=bearer, timeout=LIMIT_S)
        assert (head.status_code, head.content) == (426, b"")
        # A client without access gets a refusal, and the other paths are as they were.
        assert session.get(f"{server.url}/ws", timeout=LIMIT_S).status_code == 401
        other = session.get(f"{server.url}/other", headers=bearer, timeout=LIMIT_S)
        assert other.status_code == 404
        with connect(f"{server.websocket_url}/ws", additional_headers=bearer) as client:
            client.send("a")
            assert client.recv(timeout=LIMIT_S) == "a"


def test_a_token_is_needed_where_there_are_tokens(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yml"
    token = create_token(file, "wall", Role.READER)
    with serving(websockets={"/ws": ask_who}, tokens=TokenFile(file)) as server:
        url = f"{server.websocket_url}/ws"
        with refused(url, 401), refused(url, 401, additional_headers={"authorization": "Bearer x"}):
            pass
        secret, _ = server.web._sessions.begin(token)
        for headers in (
            {"authorization": f"Bearer {token}"},
            {"cookie": f"{COOKIE}={secret}", "origin": server.url},
        ):
            with connect(url, additional_headers=headers) as client:
                assert client.recv(timeout=LIMIT_S) == "wall"


def test_a_client_that_takes_nothing_is_dropped_and_holds_little() -> None:
    with (
        serving(websockets={"/ws": flood}, client_stall=0.5) as server,
        connect(f"{server.websocket_url}/ws", max_queue=1, close_timeout=0.1) as client,
    ):
        client.send("go")
        wait_for(lambda: ", 0 WebSockets" in server.web.state().summary, "the client's end")


@pytest.mark.parametrize(
    "frames",
    [
        b"\xff" * 40,  # reserved bits
        b"\x81\x05hello",  # not masked
        b"\x83\x80\0\0\0\0",  # a reserved opcode
        b"\x80\x80\0\0\0\0",  # a continuation of nothing
        b"\x88\x82\0\0\0\0\x00\x01",  # a close code that does not exist
    ],
)
def test_rubbish_after_the_handshake_ends_that_connection_alone(frames: bytes) -> None:
    with serving(websockets={"/ws": echo}) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S) as raw:
            raw.sendall(UPGRADE + KEY)
            got = b""
            while b"\r\n\r\n" not in got:
                got += more(raw)
            assert got.startswith(b"HTTP/1.1 101")
            raw.sendall(frames)
            rest = b""
            while piece := raw.recv(4096):
                rest += piece
            assert rest[:1] == b"\x88"  # a close frame says why
        with connect(f"{server.websocket_url}/ws") as client:
            client.send("a")
            assert client.recv(timeout=LIMIT_S) == "a"


def masked(opcode: int, data: bytes, *, fin: bool = True) -> bytes:
    """Return a client's frame of up to 125 bytes, with a mask that changes nothing."""
    return bytes([opcode | 0x80 * fin, 0x80 | len(data), 0, 0, 0, 0]) + data


def more(raw: socket.socket) -> bytes:
    """Return the next bytes; fail at the end of the stream."""
    piece = raw.recv(65536)
    assert piece, "the server closed the connection"
    return piece


@contextlib.contextmanager
def raw_client(port: int, *, token: str = "") -> Iterator[socket.socket]:
    """Connect without a library that would read by itself."""
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(LIMIT_S)
        raw.connect(("127.0.0.1", port))
        known = f"authorization: Bearer {token}\r\n".encode() if token else b""
        raw.sendall(UPGRADE + known + KEY)
        got = b""
        while not got.endswith(b"\r\n\r\n"):
            got += more(raw)
        yield raw


@pytest.fixture
def any_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a connection take the time that many frames need on a slow machine."""
    monkeypatch.setattr(WebSocket, "burst_s", math.inf)


def test_pings_of_a_client_that_takes_no_answers_are_not_read_without_end(any_speed: None) -> None:
    pings = masked(0x9, b"p" * 125) * 500
    sent = 0
    with serving(websockets={"/ws": echo}) as server, raw_client(server.port) as raw:
        raw.settimeout(1)
        with contextlib.suppress(TimeoutError):
            while sent < 2**26:
                sent += raw.send(pings)
        assert sent < 2**25, "all of it was read, and as much waits to be written"
        assert requests.get(f"{server.url}/healthz", timeout=LIMIT_S).ok


def test_a_client_that_takes_its_pongs_again_is_read_again(any_speed: None) -> None:
    ping = masked(0x9, b"p" * 125)
    with serving(websockets={"/ws": echo}) as server, raw_client(server.port) as raw:
        raw.settimeout(0.2)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while True:
                sent += raw.send((ping * 500)[sent % len(ping) :])
        raw.settimeout(LIMIT_S)
        rest = ping[sent % len(ping) :] + masked(0x1, b"again")
        pongs = sent // len(ping) * 127
        while pongs > 0:
            pongs -= len(more(raw))
        raw.sendall(rest)
        got = b""
        while not got.endswith(b"\x81\x05again"):
            got += more(raw)


def test_a_message_in_tiny_pieces_costs_what_it_holds(any_speed: None) -> None:
    pieces = 20_000
    with serving(websockets={"/ws": echo}, max_message_bytes=2**20) as server:
        with raw_client(server.port) as raw:
            tracemalloc.start()
            try:
                raw.sendall(masked(0x1, b"ab", fin=False))
                raw.sendall(masked(0x0, b"ab", fin=False) * (pieces - 1))
                raw.sendall(masked(0x9, b"sent"))
                got = b""
                while not got.endswith(b"sent"):
                    got += more(raw)  # it may ping, too
                held = tracemalloc.take_snapshot().filter_traces(
                    [tracemalloc.Filter(True, websocket_module.__file__)]
                )
            finally:
                tracemalloc.stop()
        assert sum(trace.size for trace in held.statistics("filename")) < 4 * 2 * pieces


def test_one_of_too_many_unfinished_messages_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sockets_module, "_MAX_HELD_BYTES", 1_000_000)
    # Of the client that is given up nothing is read, not even its end.
    monkeypatch.setattr(WebSocket, "close_timeout_s", 0.1)
    head = b"\x81\xff" + (500_000).to_bytes(8) + bytes(4)
    with (
        serving(websockets={"/ws": echo}, max_message_bytes=2**20) as server,
        contextlib.ExitStack() as stack,
    ):
        peers = [stack.enter_context(raw_client(server.port)) for _ in range(3)]
        for peer in peers:
            peer.sendall(head + b"x" * 400_000)
        (closed,), _, _ = select.select(peers, (), (), LIMIT_S)
        assert closed.recv(4)[2:] == (1013).to_bytes(2)
        peers.remove(closed)
        for peer in peers:
            peer.sendall(b"x" * 100_000)
            assert peer.recv(1) == b"\x81"


def test_of_unfinished_messages_the_token_with_most_gives_up_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sockets_module, "_MAX_HELD_BYTES", 1_000_000)
    monkeypatch.setattr(WebSocket, "close_timeout_s", 0.1)
    file = tmp_path / "tokens.yml"
    honest, greedy = (create_token(file, name, Role.ADMIN) for name in ("honest", "greedy"))
    head = b"\x81\xff" + (500_000).to_bytes(8) + bytes(4)
    with (
        serving(
            websockets={"/ws": echo}, tokens=TokenFile(str(file)), max_message_bytes=2**20
        ) as server,
        contextlib.ExitStack() as stack,
    ):
        early = stack.enter_context(raw_client(server.port, token=honest))
        early.sendall(head + b"x" * 300_000)
        peers = []
        for _ in range(4):
            peers.append(stack.enter_context(raw_client(server.port, token=greedy)))
            peers[-1].sendall(head + b"x" * 400_000)
        (closed, *_), _, _ = select.select([early, *peers], (), (), LIMIT_S)
        assert closed is not early
        assert closed.recv(4)[2:] == (1013).to_bytes(2)
        early.sendall(b"x" * 200_000)
        assert early.recv(1) == b"\x81"


def test_no_second_header_hides_behind_a_first(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yml"
    token = create_token(file, "admin", Role.ADMIN)
    good = f"authorization: Bearer {token}\r\n".encode()
    with serving(websockets={"/ws": ask_who}, tokens=TokenFile(str(file))) as server:
        for headers, status in ((good, b"101"), (b"authorization: Bearer x\r\n" + good, b"401")):
            with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S) as raw:
                raw.sendall(UPGRADE + headers + KEY)
                assert raw.recv(4096).startswith(b"HTTP/1.1 " + status)


def test_a_bad_handshake_is_a_problem() -> None:
    with (
        serving(websockets={"/ws": echo}) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S) as raw,
    ):
        raw.sendall(UPGRADE + b"\r\n")
        assert raw.recv(4096).startswith(b"HTTP/1.1 4")


def test_a_shared_frame_is_what_the_library_would_send() -> None:
    assert text_frame(b"abc") == b"\x81\x03abc"
