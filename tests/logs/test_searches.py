"""Searches take turns, and live tails that search do not hold the loop."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from monitor.logs.answers import ActionError
from monitor.logs.entries import Entry
from monitor.logs.filters import Filter
from monitor.logs.followers import LiveMessage, LiveTail
from monitor.logs.part import Logs
from monitor.logs.searches import Searches
from monitor.store import DatabaseSettings
from tests.logs.running import NOW, Client, Clock, opened, running
from tests.waiting import until


async def test_one_search_runs_at_a_time_and_each_token_has_its_turn() -> None:
    searches = Searches()
    order: list[str] = []
    running_now = 0

    async def search(owner: str) -> None:
        nonlocal running_now
        async with searches.turn(owner):
            running_now += 1
            assert running_now == 1
            await asyncio.sleep(0)
            order.append(owner)
            running_now -= 1

    tasks = [asyncio.create_task(search("greedy")) for _ in range(6)]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(search("modest")) for _ in range(2)]
    await asyncio.gather(*tasks)
    # Those that ran and waited already are before it, and never all of the others.
    assert order.index("modest") <= 3
    assert [order.count(owner) for owner in ("greedy", "modest")] == [6, 2]


async def test_searches_that_wait_are_bounded_and_may_be_cancelled() -> None:
    searches = Searches()
    async with searches.turn("one"):
        waiting = [asyncio.create_task(_search(searches, "one")) for _ in range(8)]
        await asyncio.sleep(0)
        with pytest.raises(ActionError, match="rate-limited"):
            await _search(searches, "one")
        others = asyncio.create_task(_search(searches, "two"))
        await asyncio.sleep(0)
        for task in waiting[:7]:
            task.cancel()
        await asyncio.sleep(0)
    await asyncio.gather(waiting[7], others)
    # The turn is free again.
    await _search(searches, "three")


async def _search(searches: Searches, owner: str) -> None:
    async with searches.turn(owner):
        pass


class Follower:
    def __init__(self) -> None:
        self.got = 0

    def offer(self, message: LiveMessage) -> None:
        self.got += message.count

    def catch_up(self) -> None:
        pass


async def test_hundreds_of_tails_that_search_leave_the_loop_to_others() -> None:
    tail = LiveTail()
    task = asyncio.create_task(tail.search())
    followers = [Follower() for _ in range(400)]
    for number, follower in enumerate(followers):
        tail.follow(follower, Filter(contains=f"word {number % 7} of {number}"))
    entries = [Entry("info", NOW, "a", f"word {n % 7} of {n}" + "x" * 200) for n in range(2000)]
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    tail.publish(entries)
    late = Follower()
    tail.follow(late, Filter(contains="word 1 of 1x"))
    await tail.settled()
    tail.flush()
    # 800,000 looks, in turns of some ms.
    assert turns > 20
    assert [follower.got > 0 for follower in followers] == [True] * 400
    # What was published before belongs to those who followed then.
    assert late.got == 0
    for other in (beside, task):
        other.cancel()
    await asyncio.gather(beside, task, return_exceptions=True)


async def test_entries_that_nobody_could_look_at_are_counted_as_missed() -> None:
    tail = LiveTail()
    follower = Follower()
    tail.follow(follower, Filter(contains="x"))
    block = [Entry("info", NOW, "a", "x") for _ in range(20_000)]
    for _ in range(4):
        tail.publish(block)
    task = asyncio.create_task(tail.search())
    await tail.settled()
    tail.flush()
    assert follower.got == 80_000
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_absolute_times_and_texts_to_exclude(scratch: DatabaseSettings) -> None:
    async with opened(scratch) as store, running(store, Clock(), timewindow=1000) as logs:
        client = Client(logs)
        for number in range(10):
            await client.upload(
                f"entry {number} {'Noise' if number % 2 else ''}", time=NOW + number
            )

        async def numbers(**query: object) -> list[int]:
            return [int(text.split()[1]) for text in await client.texts(**query)]

        assert await numbers(**{"from": NOW + 3, "until": NOW + 6}) == [5, 4, 3]
        assert await numbers(until="2023-11-14T22:13:22Z") == [1, 0]
        assert await numbers(**{"from": (NOW + 8) * 1000}) == [9, 8]
        assert await numbers(**{"from": str(NOW + 8), "timewindow": 1}) == [9, 8]
        assert await numbers(**{"not": "noise"}) == [8, 6, 4, 2, 0]
        assert await numbers(**{"not": ["noise", "8", "ENTRY 0"]}) == [6, 4, 2]
        assert await numbers(contains="entry", **{"not": "%"}) == list(range(9, -1, -1))
        for wrong in ({"from": "soon"}, {"until": "2023-11-14"}, {"not": ["x"] * 11}, {"not": 1}):
            answer = await client.ask("getLogs", **wrong)
            assert answer["error"]["code"] == "bad-request", wrong
        follower = Client(logs)
        await follower.ask("followLogs", **{"not": "noise", "level": "WARN"})
        for text in ("quiet", "noise"):
            await client.upload(text, level="warning")
        await until(follower.followed)
        assert follower.followed() == ["quiet"]


async def test_the_lines_around_an_entry(logs: Logs) -> None:
    client = Client(logs)
    for number in range(10):
        await client.upload(f"{number}", time=NOW + number, sender=f"addon-{number % 2}")
    around = {"around": NOW + 5, "limit": 4}
    assert await client.texts(**around) == ["7", "6", "5", "4"]
    assert await client.texts(**around, sender="addon-1") == ["9", "7", "5", "3"]
    assert await client.texts(around=str((NOW + 9) * 1000), limit=4) == ["9", "8"]
    assert await client.texts(around=NOW - 5, limit=4) == ["1", "0"]
    answer = await client.ask("getLogs", **around)
    assert await client.texts(cursor=answer["cursor"], limit=2) == ["3", "2"]
    for wrong in ({"until": NOW}, {"cursor": answer["cursor"]}):
        refused = await client.ask("getLogs", **around, **wrong)
        assert refused["error"]["code"] == "bad-request"


async def test_a_search_that_waits_lets_other_queries_pass(
    scratch: DatabaseSettings, tmp_path: Path
) -> None:
    del tmp_path
    async with opened(scratch) as store, running(store, Clock()) as logs:
        client = Client(logs)
        await client.upload("one")
        async with logs.service._searches.turn("another"):
            waits = asyncio.create_task(Client(logs).texts(contains="one"))
            assert await client.texts() == ["one"]
            assert not waits.done()
        assert await waits == ["one"]
