"""A page's place in a channel: every message once and in order, or the truth about it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from monitor.relay.channels import Channels
from monitor.relay.client_position import End, Event, Gap, Message, Position, Reset
from monitor.relay.feed import Feed
from monitor.relay.protocol import Message as Published
from monitor.relay.protocol import decode
from monitor.relay.settings import RelaySettings
from monitor.web.live.channel_reader import ChannelReader


class Relay:
    """What a page's following reads of the relay, and a page at its other end."""

    def __init__(self, **limits: Any) -> None:
        self.channels = Channels(RelaySettings(**limits))
        self.feed = Feed()
        self.now = 0.0
        self.page = Page(self)

    def say(self, command: str, *more: str) -> None:
        self.now += 1
        message: Published = decode([b"c", command.encode(), *map(str.encode, more)])
        self.channels.publish(
            message.channel, message.command, message.frame, self.now, 1000 + self.now
        )


class Page:
    def __init__(self, relay: Relay) -> None:
        self.following = ChannelReader(relay.channels, relay.feed)
        self.relay = relay
        self.position = Position("c")
        self.subscribe()

    def subscribe(self) -> None:
        self.following = ChannelReader(self.relay.channels, self.relay.feed)
        self.position.disconnected()
        assert self.following.take(self.position.request().encode()) is None

    def frames(self, limit: int = 10_000) -> Iterator[dict[str, Any]]:
        for _ in range(limit):
            frame = self.following.next()
            if frame is None:
                return
            size = frame[1]
            assert frame[0] == 0x81
            yield json.loads(frame[{126: 4, 127: 10}.get(size, 2) :])

    def read(self, limit: int = 10_000) -> list[Event]:
        return [
            event
            for message in self.frames(limit)
            if message["type"] != "absent"
            for event in self.position.take(message)
        ]


def said(events: list[Event]) -> list[str]:
    return [event.data["command"] for event in events if isinstance(event, Message)]


def test_a_channel_that_is_not_there_is_said_to_be_absent_once_until_it_is() -> None:
    relay = Relay()
    assert list(relay.page.frames()) == [{"type": "absent", "channel": "c"}]
    assert list(relay.page.frames()) == []
    assert len(relay.channels) == 0
    relay.say("STARTED")
    assert said(relay.page.read()) == ["STARTED"]


def test_who_reads_what_is_kept_no_more_is_told_what_is_missing() -> None:
    relay = Relay(max_messages=3)
    relay.say("ONE")
    assert said(relay.page.read()) == ["ONE"]
    for command in ("TWO", "THREE", "FOUR", "FIVE"):
        relay.say(command)
    reset, *rest = relay.page.read()
    assert isinstance(reset, Reset)
    assert (reset.seq, reset.anew) == (2, False)
    assert said(rest) == ["THREE", "FOUR", "FIVE"]


def test_a_name_that_is_used_again_is_another_channel_and_the_old_one_is_read_first() -> None:
    relay = Relay()
    relay.say("STARTED")
    assert said(relay.page.read()) == ["STARTED"]
    relay.say("FINISHED")
    relay.say("AGAIN")
    finished, end, reset, again = relay.page.read()
    assert said([finished, again]) == ["FINISHED", "AGAIN"]
    assert end == End("c", finished=True)
    assert isinstance(reset, Reset)
    assert (reset.seq, reset.anew) == (0, True)


def test_a_channel_that_the_relay_forgot_is_absent_and_another_when_it_is_back() -> None:
    relay = Relay(keep_idle=10)
    relay.say("STARTED")
    relay.page.read()
    relay.channels.expire(relay.now + 11)
    assert [message["type"] for message in relay.page.frames()] == ["failed", "absent"]
    relay.say("STARTED")
    reset, started = relay.page.read()
    assert isinstance(reset, Reset)
    assert reset.anew
    assert said([started]) == ["STARTED"]


def test_each_loss_of_a_broker_is_told_once_and_again_when_one_is_back() -> None:
    relay = Relay()
    relay.feed.brokers = 1
    relay.say("STARTED")
    assert said(relay.page.read()) == ["STARTED"]
    relay.feed.brokers = 0
    relay.feed.lost(1002.0)
    assert relay.page.read() == [Gap("c", 1, 1002.0, None)]
    assert relay.page.read() == []
    relay.feed.brokers = 1
    relay.feed.back(1003.0)
    (told,) = relay.page.frames()
    assert (told["state"], told["seq"], told["since"], told["until"]) == ("gap", 1, 1002, 1003)
    relay.say("FINISHED")
    relay.page.read()
    relay.feed.lost(2000.0)
    assert relay.page.read() == [], "a finished channel lacks nothing of the next one"
    # A page that comes back gets it again, and knows it.
    relay.page.subscribe()
    assert not [event for event in relay.page.read() if isinstance(event, Gap)]


steps = st.lists(st.sampled_from(["say", "finish", "forget", "read", "read some", "come back"]))


@given(steps)
def test_every_message_comes_once_and_in_order_or_a_reset_says_what_is_missing(
    steps: list[str],
) -> None:
    relay = Relay(max_messages=3, keep_idle=100)
    # The lives of the channel, each with its messages, from 1 on.
    lives: list[list[str]] = [[]]
    told: list[Event] = []
    for number, step in enumerate([*steps, "read"]):
        match step:
            case "say":
                if lives[-1][-1:] == ["FINISHED"]:
                    lives.append([])
                lives[-1].append(f"M{number}")
                relay.say(f"M{number}")
            case "finish":
                if lives[-1][-1:] != ["FINISHED"]:
                    lives[-1].append("FINISHED")
                relay.say("FINISHED")
            case "forget":
                relay.now += 1000
                relay.channels.expire(relay.now)
                if lives[-1]:
                    lives.append([])
            case "read":
                told += relay.page.read()
            case "read some":
                told += relay.page.read(2)
            case "come back":
                relay.page.subscribe()
    seq, life = 0, 0
    for event in told:
        if isinstance(event, Reset):
            seq = event.seq
            life += event.anew
        elif isinstance(event, Message):
            assert event.seq == seq + 1
            seq = event.seq
            # Lives may go by unseen, never back.
            command = event.data["command"]
            while life < len(lives) and lives[life][seq - 1 : seq] != [command]:
                life += 1
            assert life < len(lives), f"{command} was not message {seq} from there on"
    if lives[-1]:
        assert seq == len(lives[-1]), "the last life was read to its end"
