"""When what is due is written, and that one defect does not keep it from the others."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from monitor.relay import delivery as module
from monitor.relay.channel import Channel
from monitor.relay.protocol_v2 import SUBPROTOCOL
from tests.relay.serving import reader, say, serving

pytestmark = pytest.mark.integration_test


class Defect:
    """A subscriber that fails."""

    channel: Channel | None = None
    position = 0

    def moved(self, position: int) -> None:
        self.position = position

    def give_up(self) -> None:
        """Do nothing: nobody waits here."""

    def advance(self) -> None:
        raise RuntimeError("a defect")


class Noting(Defect):
    """A subscriber that notes in which turn of the loop it got what."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.turns: list[int] = []
        channel.subscribers.add(self)

    def advance(self) -> None:
        assert self.channel is not None
        if self.position < self.channel.end:
            self.position = self.channel.end
            self.turns.append(Noting.turn)

    turn = 0

    @classmethod
    async def count(cls) -> None:
        while True:
            cls.turn += 1
            await asyncio.sleep(0)


async def turns() -> None:
    """Let the loop do what it would do now."""
    for _ in range(20):
        await asyncio.sleep(0)


async def task(client: ClientConnection) -> str:
    return str(json.loads(await client.recv())["task_id"])


async def test_after_a_flush_writes_rest_and_what_came_meanwhile_goes_out_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # However little a flush takes, it is followed by the longest rest.
    monkeypatch.setattr(module, "_BUSY_SHARE", 1e-9)
    monkeypatch.setattr(module, "_FLUSH_SHARE_MIN", 1e-9)

    async with serving() as server:
        client = await reader(server, "c")
        flushes: list[None] = []
        flush = server.delivery.flush

        def counted() -> None:
            flushes.append(flush())

        server.delivery.flush = counted  # type: ignore[method-assign]
        say(server, "c", "first")
        assert await task(client) == "first"
        for number in range(100):
            say(server, "c", f"t{number}")
        # The rest ends by itself.
        assert [await task(client) for _ in range(100)] == [f"t{n}" for n in range(100)]
        assert len(flushes) == 2


async def test_flushes_take_what_other_work_of_the_loop_leaves() -> None:
    def busy(seconds: float) -> None:
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            pass

    async with serving() as server:
        delivery, now = server.delivery, 0.0

        def share(flushes: float, other: float) -> float:
            nonlocal now
            now += 0.2
            busy(other)
            delivery._share_time(flushes, now)
            return delivery._flush_share

        share(0.0, 0.0)
        delivery._measured = now, time.thread_time(), 0.0
        assert share(0.0, 0.0) > 0.7
        assert share(0.0, 0.05) < 0.51
        assert share(0.0, 0.15) == 0.2
        # What flushes took is not other work.
        assert share(0.15, 0.15) > 0.7


async def test_a_rest_lasts_unless_much_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    # A rest that would outlast the test.
    monkeypatch.setattr(module, "_BUSY_SHARE", 1e-9)
    monkeypatch.setattr(module, "_FLUSH_SHARE_MIN", 1e-9)
    monkeypatch.setattr(module, "_REST_MAX_S", 1000.0)

    async with serving() as server:
        client = await reader(server, "c")
        say(server, "c", "first")
        assert await task(client) == "first"
        say(server, "c", "second")
        await turns()
        assert server.delivery.deliveries == 1
        say(server, "c", "x" * 500_000)
        await turns()
        assert server.delivery.deliveries == 1
        # What waits is more than a megabyte now.
        say(server, "c", "y" * 600_000)
        await turns()
        assert server.delivery.deliveries == 4
        assert await task(client) == "second"
        assert [(await task(client))[0] for _ in range(2)] == ["x", "y"]


async def test_what_goes_to_very_many_is_written_over_several_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_PIECE_S", 0.0)
    async with serving() as server:
        client = await reader(server, "c")
        counting = asyncio.create_task(Noting.count())
        channel = server.delivery.channels.get(b"c")
        assert channel is not None
        many = [Noting(channel) for _ in range(400)]
        say(server, "c", "first")
        while not any(each.turns for each in many):
            await asyncio.sleep(0)
        assert not all(each.turns for each in many)
        # It reaches those who were written to as well as the others.
        say(server, "c", "second")
        assert [await task(client), await task(client)] == ["first", "second"]
        while any(each.position < 2 for each in many):
            await asyncio.sleep(0.01)
        counting.cancel()
        first = [each.turns[0] for each in many]
        assert max(first.count(turn) for turn in first) <= 8


async def test_clients_hear_of_the_feed_over_several_turns_and_its_last_state_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_PIECE_S", 0.0)
    monkeypatch.setattr(module, "_ASK_EVERY", 1)
    monkeypatch.setattr(module, "_FEED_REST_S", 0.001)
    async with serving() as server:
        host, port = server.addresses[0]
        url, offers = f"ws://{host}:{port}/", [Subprotocol(SUBPROTOCOL)]
        clients = [await connect(url, subprotocols=offers, max_queue=None) for _ in range(5)]
        for client in clients:
            assert json.loads(await client.recv())["state"] == "down"
        for _ in range(100):
            for state, brokers in (("up", 1), ("down", 0), ("up", 1), ("lost", 1)):
                server.delivery.feed.brokers = brokers
                server.delivery.feed_changed(state)
            await asyncio.sleep(0)
        server.delivery.feed_changed("up")
        for client in clients:
            got: list[str] = []
            while got[-2:] != ["lost", "up"]:
                got.append(json.loads(await client.recv())["state"])
            assert len(got) < 200
        for client in clients:
            await client.close()


async def test_a_defect_with_one_channel_keeps_nothing_from_the_others() -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    async with serving() as server:
        names = [f"c{number}" for number in range(5)]
        clients = [await reader(server, name) for name in names]
        for name in (*names[:3], "defect", *names[3:]):
            say(server, name, "t")
        channel = server.delivery.channels.get(b"defect")
        assert channel is not None
        channel.subscribers.add(Defect())
        assert [await task(client) for client in clients] == ["t"] * 5
    assert [type(context["exception"]) for context in told] == [RuntimeError]
