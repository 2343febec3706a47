"""What hostile peers send: how each begins, and what it repeats as fast as it can."""

from __future__ import annotations

import json
from dataclasses import dataclass

__all__ = ["ATTACKS", "Attack", "greeting", "masked", "upgrade", "welcomed"]


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack on one listener: ``relay``, ``api`` or ``zeromq``.

    ``hello`` is sent first, then ``again`` until the connection ends; if there is no ``again``, a
    new connection takes the place of each that has sent the rest. On a socket of ZeroMQ, ``first``
    comes between them, once the other side is ready: before, libzmq refuses messages. ``token`` is
    the role of the token that the attacker has, if any.
    """

    name: str
    listener: str
    hello: bytes
    again: bytes
    token: str = ""
    # How many bytes are sent at once.
    piece_bytes: int = 65536
    first: bytes = b""


def upgrade(path: str = "/", *headers: str) -> bytes:
    """Return the request of a WebSocket handshake."""
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version: 13",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def masked(opcode: int, data: bytes, *, fin: bool = True) -> bytes:
    """Return a client's frame, with a mask that changes nothing."""
    size = len(data)
    head = bytes([(0x80 if fin else 0) | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    else:
        head += b"\xfe" + size.to_bytes(2)
    return head + bytes(4) + data


def _subscribe(channel: str) -> bytes:
    return masked(1, json.dumps({"type": "subscribe", "channel": channel}).encode())


def greeting(identity: bytes = b"") -> bytes:
    """Return a ZMTP 3.0 greeting and the READY of a DEALER (https://rfc.zeromq.org/spec/23/)."""
    head = b"\xff" + bytes(7) + b"\x01\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
    ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity"
    ready += len(identity).to_bytes(4) + identity
    return head + bytes([4, len(ready)]) + ready


def welcomed(got: bytes) -> bool:
    """Return whether a socket of ZeroMQ has answered a greeting with its own, and with READY."""
    return len(got) > 65 and len(got) >= 66 + got[65]


def _long_frame(flags: int) -> bytes:
    return bytes([2 | flags]) + (65536).to_bytes(8) + bytes(65536)


_V2 = upgrade("/", "Sec-WebSocket-Protocol: recodex.monitor.v2")
_CHUNKED = b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n%b\r\n"

ATTACKS = (
    Attack("small frames", "relay", upgrade() + masked(1, b"c"), masked(1, b"") * 5000),
    Attack("pings", "relay", upgrade() + masked(1, b"c"), masked(9, b"") * 5000),
    Attack("pongs", "relay", upgrade() + masked(1, b"c"), masked(10, b"") * 5000),
    Attack("one-byte pieces", "relay", upgrade() + masked(1, b"c", fin=False),
           masked(0, b"", fin=False) * 5000),
    Attack("rubbish in v2", "relay", _V2, masked(1, b"{") * 5000),
    Attack("subscribe again", "relay", _V2, _subscribe("long") * 500),
    Attack("subscribe to all", "relay", _V2,
           b"".join(_subscribe(f"none-{n}-" + "x" * 4000) for n in range(1000))),
    Attack("header dribble", "relay", b"GET / HTTP/1.1\r\n", b"a: b\r\n" * 1000, piece_bytes=1),
    Attack("one-byte chunks", "api", _CHUNKED % (b"/session", b""), b"1\r\nx\r\n" * 5000),
    Attack("one-byte chunks refused", "api", _CHUNKED % (b"/job", b""), b"1\r\nx\r\n" * 5000),
    Attack("header dribble", "api", b"GET /healthz HTTP/1.1\r\n", b"a: b\r\n" * 1000,
           piece_bytes=1),
    Attack("pipelined requests", "api", b"",
           b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 500),
    Attack("pipelined refusals", "api", b"",
           b"GET /job HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 500),
    Attack("body after a refusal", "api",
           b"POST /job HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999\r\n\r\n",
           b"x" * 65536),
    Attack("websocket frames", "api", upgrade("/ws"), masked(1, b"{}") * 5000, token="sender"),
    Attack("websocket pieces", "api", upgrade("/ws") + masked(1, b"{", fin=False),
           masked(0, b" ", fin=False) * 5000, token="sender"),
    Attack("websocket pings", "api", upgrade("/ws"), masked(9, b"") * 5000, token="sender"),
    Attack("getLogs again", "api", upgrade("/ws"),
           masked(1, b'{"action":"getLogs"}') * 1000, token="reader"),
    Attack("endless message", "zeromq", greeting(), b"\x01\x02xx" * 20000),
    Attack("endless message", "logs", greeting(), b"\x01\x00" * 20000),
    Attack("endless messages", "zeromq", greeting(),
           b"\x01\x01c\x01\x04TASK\x01\x01t\x00\x01s" * 5000),
    Attack("thousands of peers", "zeromq", greeting(b"x" * 200), b"",
           first=b"\x01\x01c\x01\x04TASK"),
    Attack("thousands of peers", "logs", greeting(b"x" * 200), b"", first=b"\x01\x01c"),
    Attack("many frames", "zeromq", greeting(), (b"\x01\x01c" * 900 + b"\x00\x01c") * 20),
    Attack("long frames", "zeromq", greeting(),
           b"\x01\x01c\x01\x04LONG\x01\x01t\x01\x01s" + _long_frame(1) * 100 + _long_frame(0)),
)  # fmt: skip
