"""Clients of both protocols that come back as theirs do, and what they must have received."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from monitor.relay.client import RelayClient
from monitor.relay.client_position import End, Event, Feed, Gap, Message, Reset

__all__ = ["Old", "Recovering", "number_of"]

# Where a broker's loss is noticed while another is sending already, a few messages may be on
# the wrong side of the notice.
NEAR = 20


def number_of(data: dict[str, str]) -> int:
    """Return a message's number; FINISHED comes after all."""
    return int(data["task_id"]) if data["command"] == "TASK" else 1 << 30


@dataclass
class Recovering:
    """A client of the recovering protocol and all that it received."""

    channels: list[str]
    events: list[Event] = field(default_factory=list)

    async def follow(self, url: str) -> None:
        async with RelayClient(url, self.channels) as client:
            async for event in client:
                self.events.append(event)

    def check(
        self, channel: str, *, from_its_beginning: bool = True, near: int = NEAR
    ) -> tuple[int, int]:
        """Check the messages of a channel; return how many holes and resets there were.

        What a broker says on a new channel while no relay is there nobody can report: without
        ``from_its_beginning`` a channel may begin with any message. A notice of a loss may be
        ``near`` messages from where it was; a relay that may stand still (more than usually near)
        reads a broker's old connection and its new one at once, in any order.
        """
        last_number, last_seq, last_place = -1, 0, 0
        told: set[int] = set()
        missing: list[tuple[int, int, int, int, int]] = []
        holes = resets = 0
        excused = False
        ended = False
        for place, event in enumerate(self.events):
            if getattr(event, "channel", channel) != channel:
                continue
            if isinstance(event, Reset):
                resets += 1
                excused = True
                last_seq = event.seq
                if event.anew:
                    last_number = -1
                    told.clear()
            elif isinstance(event, Message):
                number = number_of(event.data)
                assert number not in told, f"{channel}: {number} twice"
                told.add(number)
                if near > NEAR and number < last_number:
                    last_seq, last_place = event.seq, place
                    continue
                assert number > last_number, f"{channel}: {number} after {last_number}"
                assert event.seq == last_seq + 1, f"{channel}: seq {event.seq} after {last_seq}"
                excused = excused or (last_seq == 0 and not from_its_beginning)
                if number != last_number + 1 and number != 1 << 30 and not excused:
                    missing.append((last_number, number, last_seq, last_place, place))
                last_number, last_seq, last_place = number, event.seq, place
                excused = False
            elif isinstance(event, End):
                assert event.finished
                ended = True
        assert ended, f"{channel} did not end"
        for hole in missing:
            last, number, seq, before, after = hole
            if near > NEAR and told.issuperset(range(last + 1, number)):
                continue
            holes += 1
            assert self.told_of_a_gap(channel, seq, before, after, near), (
                f"{channel}: nothing said of what is missing between {last} and"
                f" {number} (seq {seq + 1}): {self.events[before : after + 1]}"
            )
        return holes, resets

    def told_of_a_gap(self, channel: str, seq: int, before: int, after: int, near: int) -> bool:
        return any(
            isinstance(event, Gap) and event.channel == channel and abs(event.seq - seq) <= near
            for event in self.events
        ) or any(
            isinstance(event, Feed) and event.state != "up"
            for event in self.events[max(0, before - near) : after + near]
        )


@dataclass
class Old:
    """A client of the old protocol, which comes back as its users do: from the beginning."""

    channel: str
    connections: list[list[int]] = field(default_factory=list)
    finished: list[int] | None = None

    async def follow(self, url: str) -> None:
        while self.finished is None:
            got: list[int] = []
            self.connections.append(got)
            try:
                async with connect(url, compression=None, close_timeout=0.5) as connection:
                    await connection.send(self.channel)
                    while True:
                        got.append(number_of(json.loads(await connection.recv())))
            except ConnectionClosed as closed:
                if closed.rcvd is not None and closed.rcvd.code == 1000:
                    self.finished = got
            except (OSError, EOFError, InvalidHandshake, TimeoutError):
                pass
            await asyncio.sleep(random.uniform(0.1, 0.5))

    def check(self, history: list[int]) -> None:
        """Each connection gave the history from its beginning, as far as it lasted."""
        assert self.finished == history
        for got in self.connections:
            kept = [number for number in got if number in set(history)]
            assert kept == history[: len(kept)]
            lost = [number for number in got if number not in set(history)]
            # What a crash took from the history was its end then.
            assert got == kept + lost
            assert lost == sorted(set(lost))
