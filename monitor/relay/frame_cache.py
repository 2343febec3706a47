"""Frames that many readers of a channel get, made once; no I/O.

A reader that is one message behind gets a ``message``, one that is further behind ``messages``:
one frame for all messages of a block. Blocks divide a history the same way for everyone, so late
readers share them, wherever they began; the cache keeps them up to a number of bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from monitor.relay.channel import Channel
from monitor.relay.protocol_v2 import message_frame, message_head, messages_frame

__all__ = ["BLOCK_BYTES", "FrameCache", "TurnFrames"]

# How much of a history one frame holds, and the rest of its last message. With what a frame adds
# it is below 32 KB, the most that some libraries read.
BLOCK_BYTES = 16384
# How much of a history is read at once for the old protocol, whose frames are single messages.
_CHUNK_BYTES = 65536
# How much is kept for all channels together.
_KEPT_BYTES = 8 * 1024 * 1024


@dataclass(slots=True)
class _Block:
    frame: bytes
    # the position after it
    stop: int
    # when it was last used, in calls of expire()
    age: int


class FrameCache:
    """Makes the recovering protocol's frames, and keeps those of whole blocks."""

    def __init__(self, kept_bytes: int = _KEPT_BYTES) -> None:
        self.kept_bytes = kept_bytes
        self.size_bytes = 0
        # How many frames of more than one message were made.
        self.made = 0
        # By epoch and position, the last used last.
        self._blocks: OrderedDict[tuple[str, int], _Block] = OrderedDict()
        self._age = 0

    def read(self, channel: Channel, position: int, *, resuming: bool = False) -> tuple[bytes, int]:
        """Return the frame of the messages at ``position``, and the position after it.

        The position must be kept, and must not be the end. What a ``resuming`` reader gets is
        kept too: readers that lost the connection together come back to the same position.
        """
        if position + 1 == channel.end:
            return self._make(channel, position, position + 1), position + 1
        stop, begins = channel.block(position, BLOCK_BYTES)
        if not begins and not resuming:
            return self._make(channel, position, stop), stop
        key = channel.epoch, position
        known = self._blocks.get(key)
        if known is not None:
            if known.stop == stop:
                known.age = self._age
                self._blocks.move_to_end(key)
                return known.frame, stop
            self._remove(key)
        frame = self._make(channel, position, stop)
        self._blocks[key] = _Block(frame, stop, self._age)
        self.size_bytes += len(frame)
        while self.size_bytes > self.kept_bytes:
            self._remove(next(iter(self._blocks)))
        return frame, stop

    def expire(self) -> None:
        """Remove what nobody has used since the last call."""
        while self._blocks:
            key = next(iter(self._blocks))
            if self._blocks[key].age == self._age:
                break
            self._remove(key)
        self._age += 1

    def _remove(self, key: tuple[str, int]) -> None:
        self.size_bytes -= len(self._blocks.pop(key).frame)

    def _make(self, channel: Channel, position: int, stop: int) -> bytes:
        head = channel.head
        if not head:
            head = channel.head = message_head(channel.name, channel.epoch)
        times, texts = channel.times(position, stop), channel.payloads(position, stop)
        if stop == position + 1:
            return message_frame(head, stop, times[0], texts[0])
        self.made += 1
        return messages_frame(head, position + 1, times, texts)


class TurnFrames:
    """What readers get in one turn of the loop; those at one position get the same bytes."""

    def __init__(self, cache: FrameCache) -> None:
        # Whether readers come back, or were slow, rather than follow what is new.
        self.resuming = True
        self._cache = cache
        # How many frames of more than one message the cache may have made.
        self._made_max = 0
        # The old protocol's, of the last channel that was asked for: readers come channel by
        # channel, and its frames are cheap to cut.
        self._channel: Channel | None = None
        self._chunks: dict[int, tuple[bytearray, int]] = {}
        # The recovering protocol's.
        self._frames: dict[Channel, dict[int, tuple[bytes, int]]] = {}

    def chunk(self, channel: Channel, position: int) -> tuple[bytearray, int]:
        """Return the old protocol's frames from ``position`` on, and the position after them."""
        if channel is not self._channel:
            self._channel, self._chunks = channel, {}
        chunk = self._chunks.get(position)
        if chunk is None:
            chunk = self._chunks[position] = channel.read(position, _CHUNK_BYTES)
        return chunk

    def allow(self, count: int) -> None:
        """Allow this many frames of more than one message to be made from now on."""
        self._made_max = self._cache.made + count

    def frame(self, channel: Channel, position: int) -> tuple[bytes, int] | None:
        """Return the recovering protocol's frame at ``position``, and the position after it.

        Returns None if it would have to be made, and no more are allowed.
        """
        frames = self._frames.setdefault(channel, {})
        frame = frames.get(position)
        if frame is None:
            if self._cache.made >= self._made_max:
                return None
            frame = self._cache.read(channel, position, resuming=self.resuming)
            frames[position] = frame
        return frame

    def clear(self) -> None:
        """End the turn."""
        self._channel = None
        self._chunks = {}
        self._frames.clear()
