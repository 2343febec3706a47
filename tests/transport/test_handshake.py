"""The shorter way through a handshake leads where the library's own way leads."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.http11 import Request
from websockets.server import ServerProtocol

from monitor.transport.handshake import HandshakeProtocol
from tests.examples import examples

_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
_USUAL = (
    ("Host", "relay.example.org"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", _KEY),
    ("Sec-WebSocket-Version", "13"),
)
_values = st.sampled_from(
    [
        *("websocket", "WebSocket", "h2c", "websocket, h2c", "Upgrade", "upgrade", "close"),
        *("keep-alive, Upgrade", "keep-alive", "13", "8", "", _KEY, _KEY[:-1], "AAAA", f"{_KEY}="),
        *(f" {_KEY} ", "0", "7", "chunked", "https://a", "é", "\t x \t", "a\x00b", ";;"),
        *("x" * 9000, "recodex.v2, b", "a,b", "a, ", "a , b", ",a", "a b"),
    ]
)
_names = st.sampled_from(
    [
        *(name for name, _ in _USUAL),
        *("sec-websocket-key", "UPGRADE", "Origin", "Content-Length", "Transfer-Encoding", "X"),
        *("Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol", "X Y", "", "X-Forwarded-For"),
    ]
)
_headers = st.lists(st.tuples(_names, _values), max_size=4)
_lines = st.sampled_from(
    [
        *("GET / HTTP/1.1", "GET /ws?a=b HTTP/1.1", "GET / HTTP/1.0", "POST / HTTP/1.1"),
        *("GET /é HTTP/1.1", "GET  HTTP/1.1", "GET / x HTTP/1.1", "GET /", "get / HTTP/1.1", ""),
    ]
)


def answer(protocol: ServerProtocol, data: bytes) -> tuple[object, bytes, *tuple[object, ...]]:
    """Return the request as read, and the answer but for its date."""
    if not (isinstance(protocol, HandshakeProtocol) and protocol.take_request(data)):
        protocol.receive_data(data)
    requests = []
    for event in protocol.events_received():
        assert isinstance(event, Request)
        headers = list(event.headers.raw_items())
        # websockets 15 refuses other methods and versions, and does not give them.
        said = [getattr(event, key, None) for key in ("method", "protocol")]
        requests.append((event.path, headers, *said))
        protocol.send_response(protocol.accept(event))
        # Frames are read as usual.
        protocol.receive_data(b"\x89\x81\0\0\0\0x")
    output = re.sub(rb"Date: [^\r]*", b"", b"".join(protocol.data_to_send()))
    return requests, output, protocol.state, repr(protocol.handshake_exc), protocol.close_expected()


@settings(max_examples=examples(300))
@given(
    _lines, st.lists(st.sampled_from(_USUAL), max_size=6), _headers, st.sampled_from([0, 70, 200])
)
@example("GET / HTTP/1.1", list(_USUAL), [], 0)
@example("GET / HTTP/1.1", list(_USUAL), [("Content-Length", "0")], 0)
@example("GET / HTTP/1.1", list(_USUAL), [("Origin", "a"), ("Origin", "b")], 0)
@example("GET / HTTP/1.1", list(_USUAL), [], 200)
@example(f"GET /{'x' * 9000} HTTP/1.1", list(_USUAL), [], 0)
@example("GET / HTTP/1.1", list(_USUAL), [("X", "x" * 9000)], 0)
@example("GET / HTTP/1.1", list(_USUAL), [("Sec-WebSocket-Protocol", ";;")], 0)
@example("GET / HTTP/1.1", [], [("Connection", "é")], 0)
def test_the_library_would_say_the_same(
    line: str, usual: list[tuple[str, str]], more: list[tuple[str, str]], many: int
) -> None:
    lines = [line, *(f"{name}: {value}" for name, value in [*usual, *more])]
    lines += [f"X-{number}: y" for number in range(many)]
    data = "".join(f"{each}\r\n" for each in [*lines, ""]).encode("latin-1")
    said = answer(HandshakeProtocol(), data)
    try:
        expected = answer(ServerProtocol(), data)
    except UnicodeEncodeError:  # in websockets 15
        assert b"HTTP/1.1 400 " in said[1]
        return
    if b"HTTP/1.1 431 " in said[1] and not expected[1]:  # in websockets 15
        assert said[0] == expected[0]
    else:
        assert said == expected


@pytest.mark.parametrize("connection", ["Upgrade", "keep-alive, Upgrade"])
def test_the_usual_request_takes_the_shorter_way(connection: str) -> None:
    headers = {**dict(_USUAL), "Connection": connection}
    text = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    assert HandshakeProtocol().take_request(f"GET /ws HTTP/1.1\r\n{text}\r\n".encode())
