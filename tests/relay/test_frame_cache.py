"""What readers of the recovering protocol get of a history, and what is kept of it."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from monitor.relay.channel import Channel
from monitor.relay.client import MAX_MESSAGE_BYTES
from monitor.relay.frame_cache import BLOCK_BYTES, FrameCache
from monitor.transport.frames import text_frame
from tests.examples import examples
from tests.relay.recovering import one_by_one, payload

Told = tuple[int, float, dict[str, Any]]

sizes = st.sampled_from([0, 10, 100, 200, 5000, 70_000])
# Half a millisecond may be rounded either way.
times = st.floats(0, 2e9).filter(lambda at: round(at, 3) == round(at * 1000) / 1000)


def say(channel: Channel, size: int, at: float = 1.0) -> Told:
    data = {"command": "x" * size + str(channel.end)}
    channel.append(text_frame(json.dumps(data).encode()), at)
    return channel.end, round(at, 3), data


def told(frame: bytes) -> list[Told]:
    message = json.loads(payload(frame))
    several = message["type"] == "messages"
    assert (message["channel"], message["epoch"]) == ("c", "e")
    listed = one_by_one(message)
    assert (len(listed) > 1) == several
    return [(one["seq"], one["time"], one["data"]) for one in listed]


def read_all(batches: FrameCache, channel: Channel, position: int) -> list[Told]:
    got: list[Told] = []
    while position < channel.end:
        frame, after = batches.read(channel, position)
        messages = told(frame)
        assert len(messages) == after - position
        longest = max(len(str(message)) for message in messages)
        assert len(frame) < BLOCK_BYTES + longest + 20 * len(messages) + 200
        got += messages
        position = after
    return got


@given(st.lists(st.tuples(sizes, times), min_size=1, max_size=60), st.data())
def test_from_any_position_each_message_comes_once_with_its_number_and_time(
    messages: list[tuple[int, float]], data: st.DataObject
) -> None:
    channel = Channel(b"c", "e")
    said = [say(channel, size, at) for size, at in messages]
    channel.trim(data.draw(st.integers(0, len(said) - 1)))
    batches = FrameCache()
    for _ in range(3):
        position = data.draw(st.integers(channel.first, channel.end))
        assert read_all(batches, channel, position) == said[position:]


class Readers(RuleBasedStateMachine):
    """What is kept between readers never shows: each gets what a first one would."""

    def __init__(self) -> None:
        super().__init__()
        self.channel = Channel(b"c", "e")
        self.batches = FrameCache(kept_bytes=3 * BLOCK_BYTES)
        self.said: list[Told] = []

    @rule(count=st.sampled_from([1, 2, 30, 400]), size=sizes)
    def speak(self, count: int, size: int) -> None:
        count = min(count, 1 + 150_000 // (size + 1))
        self.said += [say(self.channel, size) for _ in range(count)]

    @precondition(lambda self: bool(len(self.channel)))
    @rule(data=st.data())
    def trim(self, data: st.DataObject) -> None:
        self.channel.trim(data.draw(st.integers(0, len(self.channel))))

    @rule(data=st.data(), resuming=st.booleans())
    def read(self, data: st.DataObject, resuming: bool) -> None:
        at = data.draw(st.sampled_from(["first", "any"]))
        first, end = self.channel.first, self.channel.end
        position = first if at == "first" else data.draw(st.integers(first, end))
        if resuming and position < end:
            self.batches.read(self.channel, position, resuming=True)
        assert read_all(self.batches, self.channel, position) == self.said[position:]

    @rule()
    def expire(self) -> None:
        self.batches.expire()

    @invariant()
    def bounded(self) -> None:
        assert 0 <= self.batches.size_bytes <= self.batches.kept_bytes


TestReaders = Readers.TestCase
TestReaders.settings = settings(max_examples=examples(40), stateful_step_count=12)


def long_channel() -> Channel:
    channel = Channel(b"c", "e")
    for _ in range(3000):
        say(channel, 100)
    return channel


def test_late_readers_share_what_was_made_wherever_they_begin() -> None:
    channel, batches = long_channel(), FrameCache()
    read_all(batches, channel, 0)
    blocks = batches.made
    assert blocks > 3
    for _ in range(10):
        read_all(batches, channel, 0)
    assert batches.made == blocks
    # From elsewhere: the rest of one block is made, all others are there.
    read_all(batches, channel, 77)
    assert batches.made == blocks + 1
    # New messages change the last block alone.
    say(channel, 100)
    read_all(batches, channel, 0)
    assert batches.made == blocks + 2


def test_who_comes_back_to_the_same_position_shares_what_was_made() -> None:
    channel, batches = long_channel(), FrameCache()
    resumed = [batches.read(channel, 2990, resuming=True) for _ in range(10)]
    assert batches.made == 1
    assert resumed == [resumed[0]] * 10
    assert resumed[0] == batches.read(channel, 2990)


def test_what_nobody_reads_any_more_is_let_go() -> None:
    channel, batches = long_channel(), FrameCache()
    read_all(batches, channel, 0)
    kept = batches.size_bytes
    assert kept > 300_000
    batches.expire()
    batches.read(channel, 0)
    batches.expire()
    assert 0 < batches.size_bytes < kept / 2
    batches.expire()
    assert batches.size_bytes == 0


def test_all_histories_together_are_kept_up_to_a_limit() -> None:
    batches = FrameCache(kept_bytes=5 * BLOCK_BYTES)
    for number in range(20):
        channel = long_channel()
        channel.epoch = f"e{number}"
        position = 0
        while position < channel.end:
            _, position = batches.read(channel, position)
    assert 3 * BLOCK_BYTES < batches.size_bytes <= batches.kept_bytes


def test_a_block_is_well_within_what_a_client_takes() -> None:
    assert MAX_MESSAGE_BYTES > 10 * BLOCK_BYTES
