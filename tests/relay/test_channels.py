"""Histories and positions, against a plain model of what a channel is."""

from __future__ import annotations

from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from monitor.relay.channel import CHANNEL_BYTES, MESSAGE_BYTES, SUBSCRIPTION_BYTES, Channel
from monitor.relay.channels import Channels
from monitor.relay.settings import RelaySettings
from tests.examples import examples


class Subscriber:
    """A position in a channel, and nothing that writes."""

    channel: Channel | None = None
    position = 0

    def moved(self, position: int) -> None:
        self.position = position

    def give_up(self) -> None:
        """Do nothing: nobody waits here."""

    def advance(self) -> None:
        """Write nothing."""


def frames_of(channel: Channel, position: int, limit_bytes: int = 1 << 30) -> bytes:
    out = bytearray()
    while position < channel.end:
        chunk, position = channel.read(position, limit_bytes)
        out += chunk
    return bytes(out)


def say(channels: Channels, text: str, *, on: bytes = b"c", now: float = 0.0) -> Channel | None:
    return channels.publish(on, text.encode(), f"<{text}>".encode(), now)


@pytest.fixture
def channels() -> Channels:
    return Channels(RelaySettings(max_messages=1000))


def test_a_late_subscriber_reads_the_whole_history(channels: Channels) -> None:
    for text in ("STARTED", "TASK", "ENDED"):
        say(channels, text)
    reader = Subscriber()
    channel = channels.subscribe(reader, b"c")
    assert frames_of(channel, reader.position) == b"<STARTED><TASK><ENDED>"


def test_a_chunk_is_bounded_but_never_empty() -> None:
    channel = Channel(b"c")
    for size in (10, 10, 1000, 10):
        channel.append(b"x" * size)
    assert [len(channel.read(position, 25)[0]) for position in range(4)] == [20, 10, 1000, 10]
    assert channel.read(0, 25)[1] == 2
    assert channel.read(2, 25)[1] == 3


def test_finished_ends_a_channel_and_a_second_one_is_ignored(channels: Channels) -> None:
    channel = say(channels, "FINISHED")
    assert channel is not None
    assert channel.ended
    assert say(channels, "FINISHED") is None
    assert len(channel) == 1


def test_anything_else_after_the_end_starts_the_channel_anew(channels: Channels) -> None:
    reader = Subscriber()
    old = channels.subscribe(reader, b"c")
    say(channels, "FINISHED")
    new = say(channels, "STARTED")
    assert new is not None
    assert new is not old
    assert not new.ended
    late = Subscriber()
    assert channels.subscribe(late, b"c") is new
    # A reader of the old one still finds its end.
    assert reader.channel is old
    assert frames_of(old, reader.position) == b"<FINISHED>"
    # The old one's time to be forgotten does not take the new one with it.
    channels.expire(1e6)
    channels.leave(reader)
    assert channels.get(b"c") is None


def test_an_ended_channel_stays_for_late_subscribers_and_then_goes() -> None:
    channels = Channels(RelaySettings(keep_finished=300))
    say(channels, "FINISHED", now=100)
    channels.expire(399.9)
    assert channels.get(b"c") is not None
    channels.expire(400)
    assert channels.get(b"c") is None
    assert channels.history_bytes == 0


def test_a_channel_used_again_is_not_ended_by_the_old_ones_timer() -> None:
    channels = Channels(RelaySettings(keep_finished=300))
    say(channels, "FINISHED", now=0)
    again = say(channels, "STARTED", now=299)
    channels.expire(300)
    assert channels.get(b"c") is again


def test_a_failed_that_nothing_follows_ends_the_channel() -> None:
    channels = Channels(RelaySettings(end_after_failed=60))
    reader = Subscriber()
    channel = channels.subscribe(reader, b"c")
    say(channels, "FAILED", now=0)
    assert channels.expire(59.9) == []
    assert channels.expire(60) == [channel]
    assert channel.ended
    late = Subscriber()
    assert channels.subscribe(late, b"c") is channel


@pytest.mark.parametrize("next_word", ["STARTED", "TASK", "ABORTED"])
def test_a_failed_that_something_follows_ends_nothing(next_word: str) -> None:
    channels = Channels(RelaySettings(end_after_failed=60))
    say(channels, "FAILED", now=0)
    say(channels, next_word, now=1)
    channels.expire(61)
    channel = channels.get(b"c")
    assert channel is not None
    assert not channel.ended


def test_aborted_ends_nothing() -> None:
    channels = Channels(RelaySettings())
    say(channels, "ABORTED", now=0)
    channel = say(channels, "STARTED", now=1)
    assert channel is not None
    assert not channel.ended
    assert frames_of(channel, 0) == b"<ABORTED><STARTED>"


def test_an_idle_channel_ends_and_is_forgotten() -> None:
    channels = Channels(RelaySettings(keep_idle=100))
    reader = Subscriber()
    channel = channels.subscribe(reader, b"c")
    say(channels, "STARTED", now=0)
    say(channels, "TASK", now=50)
    assert channels.expire(149) == []
    assert channels.expire(150) == [channel]
    assert channels.get(b"c") is None
    assert channels.history_bytes == 0


def test_a_channel_that_only_had_subscribers_leaves_nothing(channels: Channels) -> None:
    reader = Subscriber()
    channels.subscribe(reader, b"never")
    channels.leave(reader)
    channels.leave(reader)
    assert (len(channels), channels.history_bytes, channels.subscriber_count) == (0, 0, 0)


def test_the_oldest_messages_go_first() -> None:
    channels = Channels(RelaySettings(max_messages=100))
    for number in range(1000):
        say(channels, f"{number}")
    channel = channels.get(b"c")
    assert channel is not None
    assert (len(channel), channel.first, channel.end) == (100, 900, 1000)
    assert frames_of(channel, 900) == b"".join(f"<{n}>".encode() for n in range(900, 1000))


def test_finished_then_idle_channels_make_room_for_the_rest() -> None:
    room = 10 * (CHANNEL_BYTES + 10_000 + MESSAGE_BYTES)
    channels = Channels(RelaySettings(max_history_bytes=room))
    big = b"x" * 10_000
    for number in range(5):
        channels.publish(b"open%d" % number, b"TASK", big, number)
    for number in range(5):
        channels.publish(b"done%d" % number, b"FINISHED", big, 10 + number)
    assert len(channels) == 10
    channels.publish(b"one more", b"TASK", big, 20)
    assert channels.get(b"done0") is None
    for number in range(5):
        channels.publish(b"more%d" % number, b"TASK", big, 30 + number)
    assert [channels.get(b"done%d" % n) for n in range(5)] == [None] * 5
    assert channels.get(b"open0") is None
    assert channels.get(b"open1") is not None
    assert channels.history_bytes <= room


def test_a_channel_that_has_just_finished_goes_after_all_others() -> None:
    channels = Channels(RelaySettings(max_history_bytes=65_536))
    for number in range(1000):
        channels.publish(b"open%d" % number, b"STARTED", b"x", number)
    channels.publish(b"last", b"FINISHED", b"x" * 1000, 1000)
    assert channels.history_bytes <= 65_536
    channel = channels.subscribe(Subscriber(), b"last")
    assert channel.ended
    assert frames_of(channel, 0) == b"x" * 1000


@pytest.mark.parametrize("command", [b"FINISHED", b"TASK"])
@pytest.mark.parametrize("is_read", [False, True])
def test_a_message_larger_than_all_room_is_not_kept(command: bytes, is_read: bool) -> None:
    channels = Channels(RelaySettings(max_history_bytes=5000))
    if is_read:
        channels.subscribe(Subscriber(), b"c")
    channels.publish(b"c", command, b"x" * 10_000, 0)
    assert channels.history_bytes <= 5000


def test_an_evicted_channel_keeps_its_readers_but_not_its_history() -> None:
    channels = Channels(RelaySettings(max_history_bytes=65_536))
    reader = Subscriber()
    channel = channels.subscribe(reader, b"read")
    channels.publish(b"read", b"TASK", b"x" * 40_000, 0)
    channels.publish(b"other", b"TASK", b"x" * 40_000, 1)
    assert channels.get(b"read") is channel
    assert len(channel) == 0
    assert reader.position < channel.first
    channels.publish(b"read", b"TASK", b"y", 2)
    assert frames_of(channel, channel.first) == b"y"


def test_one_channel_larger_than_all_room_keeps_its_newest() -> None:
    channels = Channels(RelaySettings(max_history_bytes=65_536))
    for number in range(1000):
        channels.publish(b"c", b"TASK", b"%04d" % number * 250, number)
    channel = channels.get(b"c")
    assert channel is not None
    assert channels.history_bytes <= 65_536
    assert frames_of(channel, channel.end - 1) == b"0999" * 250


def test_lower_limits_take_effect_at_once() -> None:
    channels = Channels(RelaySettings())
    for number in range(1000):
        say(channels, f"{number}")
    channels.adopt(RelaySettings(max_messages=10))
    channel = channels.get(b"c")
    assert channel is not None
    assert len(channel) == 10
    assert channels.history_bytes < CHANNEL_BYTES + 10 * 40


def test_long_names_and_subscriptions_are_counted() -> None:
    channels = Channels(RelaySettings())
    readers = [Subscriber() for _ in range(3)]
    for reader in readers:
        channels.subscribe(reader, b"n" * 4096)
    assert channels.history_bytes > 4096
    assert channels.counted_bytes == channels.waiting_bytes
    assert channels.counted_bytes == channels.history_bytes + 3 * SUBSCRIPTION_BYTES
    channels.publish(b"n" * 4096, b"TASK", b"x", 0)
    assert channels.waiting_bytes == 3 * SUBSCRIPTION_BYTES
    for reader in readers:
        channels.leave(reader, 0.0)
    assert channels.waiting_bytes == 0


def test_channels_without_a_message_evict_no_message() -> None:
    channels = Channels(RelaySettings(max_history_bytes=1_000_000, max_clients=10))
    channels.publish(b"job", b"TASK", b"x" * 1000, 0)
    waiting = [Subscriber() for _ in range(2000)]
    for number, reader in enumerate(waiting):
        channels.subscribe(reader, b"none-%d" % number)
        channels.publish(b"job", b"TASK", b"y" * 100, number)
    channel = channels.get(b"job")
    assert channel is not None
    assert channel.first == 0
    assert len(channel) == 2001
    assert channels.waiting_excess_bytes > 0


def test_channels_that_were_left_go_first_when_too_much_waits() -> None:
    channels = Channels(RelaySettings(max_history_bytes=1_000_000, max_clients=10))
    for number in range(2000):
        reader = Subscriber()
        channels.subscribe(reader, b"left-%d" % number)
        channels.leave(reader, float(number))
        assert channels.waiting_excess_bytes <= 0
    assert channels.get(b"left-0") is None
    assert channels.get(b"left-1999") is not None


def test_histories_have_three_quarters_whatever_waits() -> None:
    channels = Channels(RelaySettings(max_history_bytes=100_000, max_clients=1000))
    for number in range(1000):
        channels.subscribe(Subscriber(), b"none-%d" % number)
    for number in range(100):
        channels.publish(b"job", b"TASK", b"x" * 1000, number)
    channel = channels.get(b"job")
    assert channel is not None
    assert 30_000 < channel.size_bytes <= 75_000


@dataclass
class ModelChannel:
    """What a channel is, said plainly."""

    said: list[bytes] = field(default_factory=list)
    ended_at: float | None = None
    failed_at: float | None = None
    last_at: float = 0.0
    readers: int = 0


class ChannelsAgainstModel(RuleBasedStateMachine):
    """Random subscribe, publish, leave, finish and time: everybody gets every message."""

    LIMITS = RelaySettings(keep_finished=50, keep_idle=200, end_after_failed=20, max_messages=10**6)

    readers = Bundle("readers")

    def __init__(self) -> None:
        super().__init__()
        self.channels = Channels(self.LIMITS)
        self.model: dict[bytes, ModelChannel] = {}
        self.now = 0.0
        self.number = 0

    @rule(
        name=st.sampled_from([b"a", b"b", b"c"]),
        command=st.sampled_from([b"TASK", b"TASK", b"FAILED", b"ABORTED", b"FINISHED"]),
    )
    def publish(self, name: bytes, command: bytes) -> None:
        self.number += 1
        frame = b"<%s %d>" % (command, self.number)
        model = self.model.get(name)
        if model is not None and model.ended_at is not None:
            if command == b"FINISHED":
                assert self.channels.publish(name, command, frame, self.now) is None
                return
            del self.model[name]
        model = self.model.setdefault(name, ModelChannel())
        model.said.append(frame)
        model.last_at = self.now
        model.failed_at = self.now if command == b"FAILED" else None
        if command == b"FINISHED":
            model.ended_at = self.now
        channel = self.channels.publish(name, command, frame, self.now)
        assert channel is not None
        assert channel.ended == (command == b"FINISHED")

    @rule(target=readers, name=st.sampled_from([b"a", b"b", b"c"]))
    def subscribe(self, name: bytes) -> tuple[Subscriber, ModelChannel, list[bytes]]:
        reader = Subscriber()
        self.channels.subscribe(reader, name)
        model = self.model.setdefault(name, ModelChannel())
        model.readers += 1
        return reader, model, []

    @rule(reader=readers, limit=st.integers(1, 60))
    def read(self, reader: tuple[Subscriber, ModelChannel, list[bytes]], limit: int) -> None:
        subscriber, model, got = reader
        channel = subscriber.channel
        assert channel is not None
        if subscriber.position < channel.end:
            chunk, subscriber.position = channel.read(subscriber.position, limit)
            got.append(bytes(chunk))
        so_far = b"".join(got)
        assert b"".join(model.said).startswith(so_far)
        if subscriber.position == channel.end:
            assert so_far == b"".join(model.said)
            assert channel.ended == (model.ended_at is not None)

    @rule(target=readers, reader=consumes(readers))
    def leave(self, reader: tuple[Subscriber, ModelChannel, list[bytes]]):  # type: ignore[no-untyped-def]
        subscriber, model, _ = reader
        self.channels.leave(subscriber)
        model.readers -= 1
        self._drop_empty()
        return multiple()

    @rule(seconds=st.sampled_from([1.0, 10.0, 19.0, 20.0, 49.0, 50.0, 200.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        told = self.channels.expire(self.now)
        expected = set()
        for name, model in list(self.model.items()):
            if not model.said:
                continue
            if model.ended_at is not None:
                if model.ended_at + self.LIMITS.keep_finished <= self.now:
                    del self.model[name]
                continue
            failed = (
                model.failed_at is not None
                and model.failed_at + self.LIMITS.end_after_failed <= self.now
            )
            idle = model.last_at + self.LIMITS.keep_idle <= self.now
            if not (failed or idle):
                continue
            model.ended_at = self.now
            if model.readers:
                expected.add(name)
            if idle and not failed:
                del self.model[name]
        assert {channel.name for channel in told} == expected

    def _drop_empty(self) -> None:
        for name, model in list(self.model.items()):
            if not model.said and not model.readers:
                del self.model[name]

    @invariant()
    def only_what_the_model_has_is_kept(self) -> None:
        assert {channel.name for channel in self.channels} == set(self.model)
        assert self.channels.history_bytes == sum(
            CHANNEL_BYTES + channel.size_bytes for channel in self.channels
        )
        for name, model in self.model.items():
            channel = self.channels.get(name)
            assert channel is not None
            assert frames_of(channel, channel.first) == b"".join(model.said)
            assert channel.ended == (model.ended_at is not None)


TestChannelsAgainstModel = ChannelsAgainstModel.TestCase
TestChannelsAgainstModel.settings = settings(
    max_examples=examples(150), stateful_step_count=50, deadline=None
)
