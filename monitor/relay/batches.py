"""A channel's messages as the recovering protocol sends them, made when someone reads; no I/O.

Who is one message behind gets a ``message``, who is further behind ``messages``: one frame
for as many as fit a block. Blocks divide a history the same way for all, so that late readers
share them, wherever they began: those that were made are kept, up to so many bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from monitor.relay.channel import Channel
from monitor.relay.protocol_v2 import message_frame, message_head, messages_frame

__all__ = ["BLOCK_BYTES", "Batches"]

# What one frame holds of a history, at most; only a single message may be longer.
BLOCK_BYTES = 65536
# What is kept of all histories.
_KEPT_BYTES = 8 * 1024 * 1024


@dataclass(slots=True)
class _Block:
    frame: bytes
    # the position after it
    stop: int
    # when it was last used, in calls of grow_old
    age: int


class Batches:
    """The frames of the recovering protocol, and those of whole blocks once made."""

    def __init__(self, kept_bytes: int = _KEPT_BYTES) -> None:
        self.kept_bytes = kept_bytes
        self.size_bytes = 0
        # How many frames of more than one message were made.
        self.made = 0
        # By epoch and position; last used last.
        self._blocks: OrderedDict[tuple[str, int], _Block] = OrderedDict()
        self._age = 0

    def read(self, channel: Channel, position: int, *, resuming: bool = False) -> tuple[bytes, int]:
        """Return the frame of what comes at ``position``, and the position after it.

        The position must be kept, and not be the end. What who is ``resuming`` gets is kept,
        too: those who lost the connection together come back to the same position.
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
            self._let_go(key)
        frame = self._make(channel, position, stop)
        self._blocks[key] = _Block(frame, stop, self._age)
        self.size_bytes += len(frame)
        while self.size_bytes > self.kept_bytes:
            self._let_go(next(iter(self._blocks)))
        return frame, stop

    def grow_old(self) -> None:
        """Let go of what nobody used since the last time; to be called now and then."""
        while self._blocks:
            key = next(iter(self._blocks))
            if self._blocks[key].age == self._age:
                break
            self._let_go(key)
        self._age += 1

    def _let_go(self, key: tuple[str, int]) -> None:
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
