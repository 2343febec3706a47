"""The client's side of both protocols, without a connection."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from monitor.relay.channel import Channel, End
from monitor.relay.client_position import (
    Event,
    Message,
    NotARelayError,
    Position,
    Reset,
)
from monitor.relay.client_position import Gap as GapEvent
from monitor.relay.codes import CLOSE_CODES, ComeBack, close_code
from monitor.relay.feed import Feed, Gap, Peers, SteadyTime
from monitor.relay.frame_cache import FrameCache
from monitor.relay.protocol_v2 import decode_request, gap_frame, subscribed_frame
from monitor.transport.frames import text_frame
from tests.relay.recovering import one_by_one, payload

SEVERAL = {"type": "messages", "channel": "c", "epoch": "e", "seq": 1, "time": 1.0}


def told(frame: bytes | bytearray) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(payload(frame))
    return message


def message(seq: int, epoch: str = "e") -> dict[str, Any]:
    return {
        "type": "message",
        "channel": "c",
        "epoch": epoch,
        "seq": seq,
        "time": 1.0,
        "data": {"command": "TASK", "task_id": str(seq)},
    }


def subscribed(seq: int, epoch: str = "e", recovered: bool | None = None) -> dict[str, Any]:
    return told(subscribed_frame(b"c", epoch, seq, recovered))


def take(position: Position, *messages: dict[str, Any]) -> list[Event]:
    return [event for one in messages for event in position.take(one)]


@given(
    cuts=st.lists(st.integers(0, 30), max_size=8),
    trims=st.lists(st.integers(0, 10), max_size=8),
)
def test_over_any_cuts_a_client_gets_everything_once_or_is_told(
    cuts: list[int], trims: list[int]
) -> None:
    """The real channel against the real client, connections ending anywhere."""
    channel = Channel(b"c", "e")
    batches = FrameCache()
    position = Position("c")
    got: list[Event] = []
    number = 0
    for cut, trim in zip(cuts, [*trims, *[0] * len(cuts)], strict=False):
        for _ in range(10):
            number += 1
            channel.append(text_frame(b'{"command": "%d"}' % number), 1.0)
        channel.trim(min(trim, len(channel)))
        position.disconnected()
        request = decode_request(position.request().encode())
        after = getattr(request, "after", None)
        at, problem = (channel.first, "") if after is None else channel.resume(*_pair(after))
        recovered = None if after is None else not problem
        got += take(position, told(subscribed_frame(b"c", channel.epoch, at, recovered)))
        stop = min(channel.end, at + cut)
        messages = read(batches, channel, max(channel.first, at - 3), stop)
        if cut % 2:
            # Whole frames, of which the client may know the beginning.
            got += take(position, *messages)
        else:
            one_each = [one for several in messages for one in one_by_one(several)]
            got += take(position, *(one for one in one_each if one["seq"] <= stop))
    expected = 1
    for event in got:
        if isinstance(event, Reset):
            assert event.seq >= expected - 1
            expected = event.seq + 1
        else:
            assert isinstance(event, Message)
            assert (event.seq, event.data) == (expected, {"command": str(expected)})
            expected += 1


def read(batches: FrameCache, channel: Channel, start: int, stop: int) -> list[dict[str, Any]]:
    """Return what a reader gets, up to the frame in which ``stop`` is reached."""
    found = []
    while start < stop:
        frame, start = batches.read(channel, start)
        found.append(told(frame))
    return found


def _pair(after: Any) -> tuple[str, int]:
    return after.epoch, after.seq


def test_nothing_is_delivered_twice_or_before_the_answer() -> None:
    position = Position("c")
    position.request()
    assert take(position, message(1), message(2)) == []
    assert len(take(position, subscribed(0), message(1), message(1), message(2))) == 2
    # Asked twice: messages between the answers belong to the first.
    position.request()
    position.request()
    assert take(position, subscribed(2, recovered=True), message(3)) == []
    assert len(take(position, subscribed(2, recovered=True), message(3))) == 1


def test_another_epoch_counts_anew_and_a_trimmed_history_goes_on() -> None:
    position = Position("c")
    position.request()
    take(position, subscribed(0), message(1))
    position.disconnected()
    assert json.loads(position.request())["after"] == {"epoch": "e", "seq": 1}
    assert take(position, subscribed(7, recovered=False)) == [Reset("c", 7, False, "e")]
    position.request()
    events = take(position, subscribed(0, "f", recovered=False), message(1, "f"))
    assert events[0] == Reset("c", 0, True, "f")
    assert isinstance(events[1], Message)


def test_a_relay_that_skips_a_number_is_found_out() -> None:
    position = Position("c")
    position.request()
    events = take(position, subscribed(0), message(1), message(3))
    assert [type(event) for event in events] == [Message, Reset, Message]


def test_several_messages_in_one_are_as_many_events() -> None:
    position = Position("c")
    position.request()
    several = {**message(1), "type": "messages", "ms": [0, 3, -1], "data": [{"n": 1}, {}, {}]}
    events = take(position, subscribed(0), several)
    assert [(e.seq, e.time) for e in events if isinstance(e, Message)] == [
        (1, 1.0),
        (2, 1.003),
        (3, 0.999),
    ]
    # Known messages are not repeated, and a hole is reported.
    assert [e.seq for e in take(position, {**several, "seq": 2}) if isinstance(e, Message)] == [4]
    assert take(position, {**several, "seq": 6})[0] == Reset("c", 5, False, "e")


def test_a_history_that_lacks_its_beginning_is_said_to_a_new_reader() -> None:
    position = Position("c")
    position.request()
    assert take(position, subscribed(5)) == [Reset("c", 5, False, "e")]


def test_gaps_are_told_once() -> None:
    position = Position("c")
    position.request()
    gap = told(gap_frame(b"c", "e", 0, 1.0, None))
    assert take(position, subscribed(0), gap, gap) == [GapEvent("c", 0, 1.0, None)]


@pytest.mark.parametrize(
    "rubbish",
    [
        {},
        {"type": "message"},
        {"type": "message", "seq": "x"},
        {**SEVERAL, "ms": [0], "data": []},
        {**SEVERAL, "ms": [0], "data": [5]},
        {**SEVERAL, "ms": ["x"], "data": [{}]},
    ],
)
def test_what_is_no_message_is_said(rubbish: dict[str, Any]) -> None:
    position = Position("c")
    position.request()
    take(position, subscribed(0))
    with pytest.raises(NotARelayError):
        take(position, rubbish)


def test_close_codes_say_whether_to_come_back() -> None:
    for row in CLOSE_CODES.values():
        low, high = row.delay_s
        assert 0 <= low <= high
        assert (row.come_back is ComeBack.NEVER) == (high == 0)
    assert close_code(4999).come_back is ComeBack.LATER
    assert close_code(1006).come_back is ComeBack.AT_ONCE


class TestPeers:
    """Brokers are distinguished from connections that only knocked."""

    def test_a_broker_comes_and_goes(self) -> None:
        peers = Peers()
        peers.accepted(5)
        assert peers.count == 0
        peers.succeeded()
        assert peers.count == 1
        assert peers.disconnected(5)
        assert peers.count == 0

    def test_a_scanner_beside_a_broker_changes_nothing(self) -> None:
        peers = Peers()
        peers.accepted(5)
        peers.accepted(6)
        peers.succeeded()  # of one of them
        assert peers.count == 1
        peers.failed()
        assert not peers.disconnected(5)
        assert peers.count == 1
        assert peers.disconnected(6)
        assert peers.count == 0

    @given(st.data())
    def test_any_order_of_notices_counts_right(self, data: st.DataObject) -> None:
        peers = Peers()
        greeting: set[int] = set()
        brokers: set[int] = set()
        for descriptor in range(data.draw(st.integers(1, 12))):
            peers.accepted(descriptor)
            greeting.add(descriptor)
            for _ in range(data.draw(st.integers(0, 2))):
                step = data.draw(st.sampled_from(["shake", "fail", "leave"]))
                if step == "shake" and greeting:
                    brokers.add(greeting.pop())
                    peers.succeeded()
                elif step == "fail" and greeting:
                    peers.failed()
                    assert not peers.disconnected(greeting.pop())
                elif step == "leave" and brokers:
                    assert peers.disconnected(brokers.pop())
                assert peers.count == len(brokers)


class TestFeed:
    """Outages, and which channels they concern."""

    def channel(self) -> Channel:
        channel = Channel(b"c", "e")
        for at in (10.0, 20.0, 30.0):
            channel.append(text_frame(b"{}"), at)
        return channel

    @pytest.mark.parametrize(
        ("since", "until", "expected"),
        [(5.0, 7.0, None), (25.0, 27.0, 2), (30.0, None, 3), (99.0, 100.0, 3)],
    )
    def test_a_gap_is_where_the_outage_was(
        self, since: float, until: float | None, expected: int | None
    ) -> None:
        feed = Feed()
        feed.lost(since)
        if until is not None:
            feed.back(until)
        gaps = list(feed.gaps(self.channel(), 0))
        assert gaps == ([] if expected is None else [Gap(expected, since, until)])
        # A reader beyond it was notified before.
        if expected is not None:
            assert list(feed.gaps(self.channel(), expected)) == gaps
            assert list(feed.gaps(self.channel(), expected + 1)) == []

    @pytest.mark.parametrize("restarted", [False, True])
    def test_a_clock_that_is_set_back_moves_no_gap(self, restarted: bool) -> None:
        clock = 1_700_000_000.0
        time = SteadyTime(lambda: clock)
        feed, channel = Feed(), Channel(b"c", "e")
        channel.append(b"1", time())
        clock -= 7 * 3600
        if restarted:
            time, saved_at = SteadyTime(lambda: clock), time()
            time.not_before(saved_at)
            feed.restore([], saved_at)
        else:
            feed.lost(time())
        feed.back(time())
        channel.append(b"2", time())
        assert [gap.seq for gap in feed.gaps(channel, 0)] == [1]

    def test_an_outage_after_the_end_concerns_nobody(self) -> None:
        feed = Feed()
        feed.lost(40.0)
        channel = self.channel()
        channel.end_kind = End.FINISHED
        assert list(feed.gaps(channel, 0)) == []

    def test_a_loss_is_told_where_it_was_also_while_another_broker_stays_away(self) -> None:
        feed = Feed()
        feed.lost(5.0)
        feed.lost(22.0)
        feed.back(25.0)
        assert list(feed.gaps(self.channel(), 0)) == [Gap(2, 22.0, 25.0)]

    def test_two_losses_before_one_return_are_one_outage(self) -> None:
        feed = Feed()
        feed.lost(12.0)
        feed.lost(13.0)
        feed.back(25.0)
        assert list(feed.gaps(self.channel(), 0)) == [Gap(1, 12.0, 25.0)]
        assert feed.interruptions == 2
