"""The relay's wire formats: ZeroMQ frames in, WebSocket frames out. Pure functions, no I/O.

In: sender identity, channel, command, and for TASK also task id and task state. Out: exactly
``json.dumps(d, sort_keys=True)`` of the keys present of command, task_id and task_state, as the
old monitor built it. Further frames are ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from json.encoder import encode_basestring_ascii

import msgspec

from monitor.transport.frames import text_frame

__all__ = ["Malformed", "Message", "decode"]

_MAX_FRAMES = 5


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message of a broker: its channel, its command, and its frame for subscribers."""

    channel: bytes
    command: bytes
    frame: bytes


class Malformed(Exception):  # noqa: N818 - it never leaves the receiver
    """A message that cannot be relayed; ``reason`` is one of a fixed few, for metrics."""

    def __init__(self, reason: str, details: str) -> None:
        super().__init__(details)
        self.reason = reason
        self.details = details


# Jobs of one exercise have tasks of the same names, so the same frames recur. Longer frames are
# not kept, and when there are too many, all are dropped.
_recurring: dict[tuple[bytes, ...], bytes] = {}
_RECURRING_MAX = 4096
_RECURRING_MAX_BYTES = 256
_KEYS = ("command", "task_id", "task_state")


def _frame(fields: tuple[bytes, ...]) -> bytes:
    strings = [encode_basestring_ascii(field.decode()) for field in fields]
    pairs = [f'"{key}": {string}' for key, string in zip(_KEYS, strings, strict=False)]
    frame = text_frame(f"{{{', '.join(pairs)}}}".encode("ascii"))
    if len(frame) <= _RECURRING_MAX_BYTES:
        if len(_recurring) >= _RECURRING_MAX:
            _recurring.clear()
        _recurring[fields] = frame
    return frame


def decode(frames: Sequence[bytes]) -> Message:
    """Decode a message's frames after the sender's identity, or raise Malformed.

    Raises for fewer than two frames (channel, command), an empty channel or command, and
    bytes that are not UTF-8.
    """
    if len(frames) < 2:
        raise Malformed("frames", f"{len(frames)} frames after the identity, at least 2 expected")
    channel, command = frames[0], frames[1]
    if not channel or not command:
        raise Malformed("empty", "an empty channel or command")
    try:
        channel.decode()
        fields = tuple(frames[1:4])
        return Message(channel, command, _recurring.get(fields) or _frame(fields))
    except UnicodeDecodeError:
        raise Malformed("encoding", "bytes that are not UTF-8") from None
