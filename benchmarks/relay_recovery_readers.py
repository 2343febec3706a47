"""Subscribers of either protocol over all their connections: what each must get, and has got."""

from __future__ import annotations

import itertools
import json
import socket
import struct

from benchmarks import relay_wire as wire
from benchmarks.relay_streams import StreamError

__all__ = ["OLD", "RECOVERING", "Channel", "Subscriber"]

OLD, RECOVERING = "v1", "v2"


class Channel:
    """A channel's messages: as they are published, and their texts."""

    def __init__(self, number: int, messages: int) -> None:
        self.name = f"job_{number:05}"
        fields = [wire.task(number, index) for index in range(messages)]
        self.published = [wire.zmtp_message(self.name, one) for one in fields]
        self.tails = [b'"data":' + wire.text(one) + b"}" for one in fields]
        self.texts = [wire.text(one) for one in fields]
        # As several come in one: the texts with a comma after each, and where each begins.
        self.joined = b"".join(text + b"," for text in self.texts)
        self.begins = [0, *itertools.accumulate(len(text) + 1 for text in self.texts)]
        self.numbers = {begin: number for number, begin in enumerate(self.begins)}


class Subscriber:
    """One subscriber over all its connections, and how many messages it has."""

    def __init__(self, channel: Channel, protocol: str) -> None:
        self.channel = channel
        self.protocol = protocol
        self.seq = 0
        self.epoch = ""
        self.socket: socket.socket
        self.buffer = b""
        self.connected = False
        # Whether its WebSocket is open, and then waits for a command to name its channel.
        self.upgraded = False
        self.silent = False
        self.subscribed = False
        self.complete_at = 0.0

    def request(self) -> bytes:
        """Return what to send once the connection stands."""
        if self.protocol == OLD:
            return wire.subscription(self.channel.name)
        told: dict[str, object] = {"type": "subscribe", "channel": self.channel.name}
        if self.epoch:
            told["after"] = {"epoch": self.epoch, "seq": self.seq}
        payload = json.dumps(told).encode()
        if len(payload) < 126:
            return wire.client_frame(1, payload)
        return b"\x81\xfe" + struct.pack("!H", len(payload)) + bytes(4) + payload

    def take(self, data: bytes) -> None:
        """Check the messages that came."""
        data = self.buffer + data
        place, size = 0, len(data)
        while size - place >= 2:
            length, begin = data[place + 1], place + 2
            if length == 126:
                if size - place < 4:
                    break
                length, begin = (data[place + 2] << 8) | data[place + 3], place + 4
            elif length == 127:
                if size - place < 10:
                    break
                length, begin = int.from_bytes(data[place + 2 : place + 10], "big"), place + 10
            if begin + length > size:
                break
            if data[place] == 0x81:
                self._message(data[begin : begin + length])
            elif data[place] == 0x88:
                raise StreamError(f"{self.channel.name}: closed: {data[begin : begin + length]!r}")
            place = begin + length
        self.buffer = data[place:]

    def _message(self, payload: bytes) -> None:
        if self.protocol == OLD:
            if payload != self.channel.texts[self.seq]:
                raise StreamError(f"{payload!r} instead of {self.channel.texts[self.seq]!r}")
            self.seq += 1
        elif payload.startswith(b'{"type":"message",'):
            if b'"seq":%d,' % (self.seq + 1) not in payload or not payload.endswith(
                self.channel.tails[self.seq]
            ):
                raise StreamError(f"{payload!r} as message {self.seq + 1}")
            self.seq += 1
        elif payload.startswith(b'{"type":"messages",'):
            self._messages(payload)
        elif payload.startswith(b'{"type":"subscribed",'):
            told = json.loads(payload)
            if self.epoch and not (told["recovered"] and told["seq"] == self.seq):
                raise StreamError(f"{payload!r} where {self.seq} messages were there")
            self.epoch, self.subscribed = told["epoch"], True

    def _messages(self, payload: bytes) -> None:
        head, _, rest = payload.partition(b'"data":[')
        channel, begin = self.channel, self.channel.begins[self.seq]
        # The expected bytes, and whether they end where a message does.
        after = channel.numbers.get(begin + len(rest) - 1)
        if (
            b'"seq":%d,' % (self.seq + 1) not in head
            or after is None
            or not channel.joined.startswith(rest[:-2], begin)
        ):
            raise StreamError(f"{payload[:200]!r} as messages from {self.seq + 1}")
        self.seq = after
