"""The bytes of the servers' protocols, made by hand so that a load costs next to nothing.

ZMTP 3.0 (rfc.zeromq.org/spec/23) towards the relay's ROUTER and the WebSocket (RFC 6455)
towards its subscribers. In place of ZMTP the HTTP publisher of nginx's nchan module, and
Centrifugo's batches with its JSON protocol. Everything here is a pure function; the sockets
are in ``relay_load``.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Iterator

__all__ = [
    "ACCEPT",
    "CLOSE_1000",
    "FINISHED",
    "ZMTP_HELLO",
    "centrifugo_batch",
    "centrifugo_command",
    "centrifugo_line",
    "centrifugo_subscription",
    "client_frame",
    "compression_taken",
    "deflated",
    "http_publish",
    "server_frame",
    "server_frame_size",
    "subscription",
    "task",
    "text",
    "upgrade",
    "zmtp_frames",
    "zmtp_message",
    "zmtp_pong",
]

# RFC 6455, 1.3: this key is the specification's own example, and this its answer.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
OFFER = "permessage-deflate; client_max_window_bits"  # of Chromium and Firefox
CLOSE_1000 = struct.pack("!H", 1000)
FINISHED = ("FINISHED",)


def _zmtp_ready() -> bytes:
    body = b"\x05READY" + b"\x0bSocket-Type" + struct.pack("!I", 6) + b"DEALER"
    return bytes([0x04, len(body)]) + body


# Signature, version 3.0, mechanism NULL, not as a server, filler; and then READY.
ZMTP_HELLO = (
    b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
) + _zmtp_ready()


def task(channel: int, number: int) -> tuple[str, ...]:
    """Return the fields of one message; tasks of different jobs share names, as tests do."""
    return ("TASK", f"test-{channel + number:05}", "COMPLETED")


def text(fields: tuple[str, ...]) -> bytes:
    """Return the JSON text that a subscriber gets for a message."""
    names = ("command", "task_id", "task_state")
    return json.dumps(dict(zip(names, fields, strict=False)), sort_keys=True).encode()


def zmtp_message(channel: str, fields: tuple[str, ...]) -> bytes:
    """Return a whole message as it travels: a channel and its fields, a frame each."""
    frames = [frame.encode() for frame in (channel, *fields)]
    more = b"".join(bytes([1, len(frame)]) + frame for frame in frames[:-1])
    return more + bytes([0, len(frames[-1])]) + frames[-1]


def zmtp_frames(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Return the whole frames (flags, body) at the start of ``data``, and the rest."""
    frames = []
    while len(data) >= 2:
        long = data[0] & 0x02
        if long and len(data) < 9:
            break
        start, size = (9, int.from_bytes(data[1:9], "big")) if long else (2, data[1])
        if len(data) < start + size:
            break
        frames.append((data[0], data[start : start + size]))
        data = data[start + size :]
    return frames, data


def zmtp_pong(command: bytes) -> bytes:
    """Return the answer to a command that the peer sent: a PONG to a PING, else nothing."""
    if not command.startswith(b"\x04PING"):
        return b""
    body = b"\x04PONG" + command[7:]
    return bytes([0x04, len(body)]) + body


def http_publish(channel: str, fields: tuple[str, ...]) -> bytes:
    """Return the request that publishes the same message through nchan."""
    body = text(fields)
    head = f"POST /pub/{channel} HTTP/1.1\r\nHost: b\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def centrifugo_command(channel: str, fields: tuple[str, ...]) -> bytes:
    """Return the command of a batch that publishes the same message through Centrifugo."""
    return b'{"publish":{"channel":"%s","data":%s}}' % (channel.encode(), text(fields))


def centrifugo_batch(commands: Iterable[bytes]) -> bytes:
    """Return the request that has Centrifugo execute commands, one after another."""
    body = b'{"commands":[' + b",".join(commands) + b"]}"
    head = (
        "POST /api/batch HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def centrifugo_subscription(channel: str) -> bytes:
    """Return the two frames with which a client connects to Centrifugo and subscribes."""
    subscribe = b'{"id":2,"subscribe":{"channel":"%s"}}' % channel.encode()
    return client_frame(0x1, b'{"id":1,"connect":{}}') + client_frame(0x1, subscribe)


def centrifugo_line(channel: str, number: int, data: bytes) -> bytes:
    """Return the line that a subscriber gets for a channel's message of this number."""
    return b'{"push":{"channel":"%s","pub":{"data":%s,"offset":%d}}}\n' % (
        channel.encode(),
        data,
        number,
    )


def upgrade(path: str, *, compression: bool) -> bytes:
    """Return the request that opens a WebSocket, offering ``compression`` as browsers do."""
    offer = f"Sec-WebSocket-Extensions: {OFFER}\r\n" if compression else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"{offer}Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def compression_taken(head: bytes) -> bool:
    """Return whether a server's answer to the upgrade accepts the compression.

    Raises ValueError for one whose parameters are not those of websockets' default, which
    :func:`deflated` reproduces.
    """
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"sec-websocket-extensions":
            if b"permessage-deflate" not in value or b"server_max_window_bits=12" not in value:
                raise ValueError(f"compression with unknown parameters: {value!r}")
            return True
    return False


def deflated(texts: Iterable[bytes]) -> Iterator[bytes]:
    """Return the frames of a connection that compresses as websockets does by default.

    RFC 7692 with context takeover: what a message compresses to depends on those before it.
    """
    encoder = zlib.compressobj(wbits=-12, memLevel=5)
    for one in texts:
        data = encoder.compress(one) + encoder.flush(zlib.Z_SYNC_FLUSH)
        frame = server_frame(data[:-4])
        yield bytes([frame[0] | 0x40]) + frame[1:]


def subscription(channel: str) -> bytes:
    """Return a client's text frame; its mask is zero, so the text stands as it is."""
    return client_frame(0x1, channel.encode())


def client_frame(opcode: int, payload: bytes) -> bytes:
    """Return one short frame as a client sends it, masked with zero."""
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + bytes(4) + payload


def server_frame(payload: bytes) -> bytes:
    """Return a text frame as a server sends it, not masked."""
    if len(payload) < 126:
        return bytes([0x81, len(payload)]) + payload
    return b"\x81\x7e" + struct.pack("!H", len(payload)) + payload


def server_frame_size(data: bytes, place: int) -> tuple[int, int] | None:
    """Return the sizes of the header and the payload of a text frame that begins there.

    None if not all of the header is there; raises ConnectionError for another kind of frame.
    """
    if data[place] != 0x81:
        raise ConnectionError(f"no text frame: {data[place : place + 80]!r}")
    if len(data) < place + 2:
        return None
    size = data[place + 1]
    more = {126: 2, 127: 8}.get(size, 0)
    if len(data) < place + 2 + more:
        return None
    return 2 + more, int.from_bytes(data[place + 2 : place + 2 + more], "big") if more else size
