"""What relays tell each other through ``relay.topic``: JSON, one object a message; no I/O.

A message about a channel has the channel as its key, so all about one channel is in order::

    {"relay": "0c5e", "epoch": "0c5e-1", "begins": true, "ancestors": [["77d0-3", 12]],
     "seq": 13, "at": [1612839600.25], "data": [{"command": "FINISHED"}], "end": "finished"}

``begins`` says that it is the first of its epoch. ``seq`` is the number of the first message in
``data``, ``at`` when each came, ``ancestors`` are earlier epochs of the channel, each with the
number of messages up to which it is the same. One without messages and end is a mark, with a
number of its relay's: the relay that reads its own has read the channel so far. A message without a
key says how many brokers a relay has::

    {"relay": "0c5e", "at": 1612839600.25, "brokers": 1}
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec

from monitor.relay.channel import Channel, End
from monitor.transport.frames import text_frame
from monitor.validation import decoding_problem

__all__ = [
    "BrokersRecord",
    "ChannelRecord",
    "brokers_record",
    "channel_record",
    "command_of",
    "decode_record",
    "frames_of",
    "mark_record",
]

_Run = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
_Number = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Time = Annotated[float, msgspec.Meta(ge=0, le=2**40)]


class ChannelRecord(msgspec.Struct, frozen=True):
    """Messages of a channel in a row, or its end, or both."""

    relay: _Run
    epoch: _Run
    seq: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    at: list[_Time] = []
    data: list[msgspec.Raw] = []
    # Whether it is the first of its epoch.
    begins: bool = False
    ancestors: list[tuple[str, _Number]] = []
    end: End | None = None

    @property
    def start(self) -> int:
        """The position of the first message."""
        return self.seq - 1

    @property
    def stop(self) -> int:
        """The position after the last message."""
        return self.start + len(self.data)

    def same_up_to(self, epoch: str) -> int | None:
        """Return the number of messages that an earlier epoch has in common with this one."""
        return next((number for old, number in self.ancestors if old == epoch), None)

    @property
    def is_mark(self) -> bool:
        """Whether it says nothing about the channel."""
        return not self.data and self.end is None

    @property
    def failed(self) -> bool:
        """Whether the last message is FAILED."""
        return bool(self.data) and command_of(self.data[-1]) == b"FAILED"


class BrokersRecord(msgspec.Struct, frozen=True):
    """How many brokers a relay has; it says so again and again while it has any."""

    relay: _Run
    at: _Time
    brokers: Annotated[int, msgspec.Meta(ge=0, le=2**31)]


class _Command(msgspec.Struct):
    command: str


_decode_channel = msgspec.json.Decoder(ChannelRecord).decode
_decode_brokers = msgspec.json.Decoder(BrokersRecord).decode
_decode_command = msgspec.json.Decoder(_Command).decode
_encode = msgspec.json.Encoder().encode


def command_of(text: msgspec.Raw | bytes) -> bytes:
    """Return the command of a channel's message."""
    return _decode_command(text).command.encode()


def brokers_record(run: str, at: float, brokers: int) -> bytes:
    """Return how many brokers a relay has, as JSON."""
    return _encode({"relay": run, "at": at, "brokers": brokers})


def mark_record(run: str, number: int) -> bytes:
    """Return a mark, as JSON; numbers begin at 1."""
    return _encode({"relay": run, "epoch": run, "seq": number})


def decode_record(key: str | None, value: bytes) -> ChannelRecord | BrokersRecord:
    """Decode a message of the topic; raises ValueError with what is wrong."""
    try:
        if key is None:
            return _decode_brokers(value)
        record = _decode_channel(value)
        if not key or len(record.at) != len(record.data):
            raise ValueError("no channel" if not key else "as many times as messages expected")
        key.encode()
        for text in record.data:
            _decode_command(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ValueError(decoding_problem(error)) from None
    return record


def channel_record(run: str, channel: Channel, start: int, stop: int, *, end: End | None) -> bytes:
    """Return the messages of a channel from ``start`` up to ``stop``, which are kept, as JSON."""
    texts: Iterable[bytes | bytearray] = ()
    times: Sequence[float] = ()
    if start < stop:
        texts, times = channel.payloads(start, stop), channel.times(start, stop)
    head: dict[str, Any] = {"relay": run, "epoch": channel.epoch, "seq": start + 1}
    if not channel.begun:
        head["begins"] = True
    if channel.ancestors:
        head["ancestors"] = channel.ancestors
    if end is not None:
        head["end"] = end.value
    return b'%b,"at":%b,"data":[%b]}' % (
        _encode(head)[:-1],
        _encode(list(times)),
        b",".join(texts),
    )


def frames_of(record: ChannelRecord, after: int = 0) -> tuple[bytes, array[int], array[float]]:
    """Return the messages but the first ``after`` as frames, their sizes and their times."""
    frames = [text_frame(bytes(text)) for text in record.data[after:]]
    return (
        b"".join(frames),
        array("I", [len(frame) for frame in frames]),
        array("d", record.at[after:]),
    )
