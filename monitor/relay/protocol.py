"""The relay's wire formats: ZeroMQ frames in, WebSocket frames out. Pure functions, no I/O.

In: sender identity, channel, command, and for TASK also task id and task state. What stands
for a subscriber is exactly ``json.dumps(d, sort_keys=True)`` of the keys present of command,
task_id, task_state, as the old monitor built it; further frames are ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from typing import NamedTuple

__all__ = ["PING", "Malformed", "Message", "decode", "payload", "text_frame"]

# A whole ping frame without payload (RFC 6455, section 5.5.2); its pong needs no bookkeeping.
PING = b"\x89\x00"

_MAX_FRAMES = 5


class Message(NamedTuple):
    """One message of a broker: where it goes, what it says, and its text for subscribers."""

    channel: bytes
    command: bytes
    text: bytes


class Malformed(Exception):  # noqa: N818 - it never leaves the receiver
    """A message that can't be relayed; ``reason`` is one of a fixed few, for metrics."""

    def __init__(self, reason: str, details: str) -> None:
        super().__init__(details)
        self.reason = reason
        self.details = details


_CACHED_BYTES = 64


@lru_cache(maxsize=4096)
def _recurring(value: bytes) -> str:
    return encode_basestring_ascii(value.decode())


def _json_string(value: bytes) -> str:
    # Commands, states and task ids recur; longer values would only make the cache large.
    if len(value) <= _CACHED_BYTES:
        return _recurring(value)
    return encode_basestring_ascii(value.decode())


def decode(frames: Sequence[bytes]) -> Message:
    """Decode a message's frames after the sender's identity, or raise Malformed.

    Raises for fewer than two frames (channel, command), an empty channel or command, and
    bytes that are no UTF-8.
    """
    if len(frames) < 2:
        raise Malformed("frames", f"{len(frames)} frames after the identity, at least 2 expected")
    channel, command = frames[0], frames[1]
    if not channel or not command:
        raise Malformed("empty", "an empty channel or command")
    try:
        channel.decode()
        text = f'{{"command": {_json_string(command)}'
        if len(frames) > 2:
            text += f', "task_id": {_json_string(frames[2])}'
            if len(frames) > 3:
                text += f', "task_state": {_json_string(frames[3])}'
    except UnicodeDecodeError:
        raise Malformed("encoding", "bytes that are not UTF-8") from None
    return Message(channel, command, (text + "}").encode("ascii"))


def text_frame(payload: bytes) -> bytes:
    """Build a server's whole, unmasked text frame around ``payload`` (RFC 6455, section 5.2)."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2) + payload
    return b"\x81\x7f" + size.to_bytes(8) + payload


def payload(frame: bytes | bytearray) -> bytes | bytearray:
    """Return what a frame of :func:`text_frame` is built around."""
    size = frame[1]
    return frame[2 if size < 126 else 4 if size == 126 else 10 :]
