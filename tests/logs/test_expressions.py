"""Queries and live tails by regular expressions: what they find, and what they cannot hold up."""

from __future__ import annotations

import asyncio
import itertools
import re
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor.logs.actions import filter_of, query
from monitor.logs.answers import ActionError
from monitor.logs.entries import Entry
from monitor.logs.expressions import MESSAGES, Expressions
from monitor.logs.filters import Filter, Kind
from monitor.logs.followers import LiveMessage, LiveTail
from monitor.logs.part import Logs
from monitor.store import Store
from monitor.tokens import ANYONE
from tests.logs.running import NOW, Client, Clock, line, running
from tests.waiting import until

pytestmark = pytest.mark.integration_test

# Python's engine takes hours for it.
CATASTROPHIC = "(a+)+$"
VICTIM = "a" * 60 + "!"
SMALL = [
    "".join(letters) for size in range(4) for letters in itertools.product("aB\né", repeat=size)
]


def found_by_python(expression: str) -> list[str] | None:
    """Return the small messages in which it is found; None for an invalid expression."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        try:
            compiled = re.compile(expression)
        except (re.error, OverflowError):
            return None
    return [text for text in SMALL if compiled.search(text)]


async def test_it_finds_what_python_finds(logs: Logs) -> None:
    client = Client(logs)
    items = [line(text, time=NOW - number / 100) for number, text in enumerate(SMALL)]
    assert (await client.ask("uploadLogs", logs=items))["accepted"] == len(SMALL)
    loop = asyncio.get_running_loop()

    @settings(
        max_examples=150,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.text("aBbé.()[]|*+?^$\\wdns{12,}-iI:=!\n", min_size=1, max_size=9))
    def agree(expression: str) -> None:
        asked = client.ask("getLogs", regexp=expression)
        answer = asyncio.run_coroutine_threadsafe(asked, loop).result()
        expected = found_by_python(expression)
        if expected is None:
            assert answer["error"]["code"] == "bad-request", answer
            assert answer["error"]["message"].startswith("regexp: not a regular expression: ")
        else:
            assert [entry["message"] for entry in answer["logs"]] == expected

    await asyncio.to_thread(agree)


async def test_it_narrows_with_the_other_filters(logs: Logs) -> None:
    client = Client(logs)
    for text, fields in (
        ("disk 7 is full", {}),
        ("Disk 8 is full", {"sender": "addon-2"}),
        ("disk 9 is slow", {"level": "error"}),
        ("clock 7 is off", {}),
    ):
        await client.upload(text, **fields)
    assert await client.texts(regexp=r"^disk \d") == ["disk 9 is slow", "disk 7 is full"]
    assert await client.texts(regexp=r"(?i)^disk", contains="FULL") == [
        "Disk 8 is full",
        "disk 7 is full",
    ]
    assert await client.texts(regexp="7", **{"not": "disk"}) == ["clock 7 is off"]
    assert await client.texts(regexp="is", sender="addon-2") == ["Disk 8 is full"]
    assert await client.texts(regexp="is", min_level="error") == ["disk 9 is slow"]
    # Not a dot or a slash of SQL's: an empty one is found everywhere.
    assert len(await client.texts(regexp="")) == 4
    assert await client.texts(regexp="%") == []
    for wrong in ("(", "a" * 4097, "\0", 7):
        answer = await client.ask("getLogs", regexp=wrong)
        assert answer["error"]["code"] == "bad-request", wrong


async def test_pages_hold_each_entry_once_and_the_last_has_no_cursor(logs: Logs) -> None:
    client = Client(logs)
    # More than are matched at once; of some, the times are the same.
    items = [line(f"{n} {n % 7}", time=NOW - n // 3 / 1000) for n in range(2 * MESSAGES + 500)]
    await client.ask("uploadLogs", logs=items)
    kept = await client.texts(limit=10_000)
    expected = [text for text in kept if text.endswith(" 3")]

    async def paged(limit: int) -> list[str]:
        found: list[str] = []
        cursor = None
        while True:
            answer = await client.ask("getLogs", regexp=" 3$", limit=limit, cursor=cursor)
            found += [entry["message"] for entry in answer["logs"]]
            assert len(answer["logs"]) <= limit
            cursor = answer["cursor"]
            if cursor is None:
                return found

    assert await paged(10_000) == await paged(100) == expected
    answer = await client.ask("getLogs", regexp=" 3$", limit=len(expected))
    assert answer["cursor"] is None
    around = {"around": items[1500]["time"], "limit": 20}
    near = await client.ask("getLogs", regexp=" 3$", **around)
    texts = [entry["message"] for entry in near["logs"]]
    assert len(texts) == 20
    first = expected.index(texts[0])
    assert texts == expected[first : first + 20]
    assert near["logs"][10]["time"] <= around["around"] < near["logs"][9]["time"]


async def test_a_page_that_took_its_time_ends_where_it_is(store: Store) -> None:
    elapsed = iter(range(0, 10_000_000, 100))
    async with running(store, Clock(), elapsed=lambda: next(elapsed)) as logs:
        client = Client(logs)
        items = [line(f"{n}", time=NOW - n / 1000) for n in range(3 * MESSAGES)]
        await client.ask("uploadLogs", logs=items)
        pages: list[list[str]] = []
        cursor = None
        while True:
            answer = await client.ask("getLogs", regexp="99$", cursor=cursor)
            pages.append([entry["message"] for entry in answer["logs"]])
            cursor = answer["cursor"]
            if cursor is None:
                break
        assert len(pages) == 3
        assert [text for page in pages for text in page] == [
            f"{n}" for n in range(3 * MESSAGES) if n % 100 == 99
        ]


async def test_matching_entries_are_counted(logs: Logs) -> None:
    client = Client(logs)
    items = [line(f"{n % 2}", time=NOW - 50 + n / 100) for n in range(MESSAGES + 200)]
    await client.ask("uploadLogs", logs=items)
    asked = query(Kind.LOGS, filter_of(regexp="1"), since=NOW - 50, until=NOW - 38)
    counted = await logs.service.histogram(asked, ANYONE, bars=12)
    assert counted.levels["info"] == [50] * 12
    wrong = query(Kind.LOGS, filter_of(regexp="("))
    with pytest.raises(ActionError, match="not a regular expression"):
        await logs.service.histogram(wrong, ANYONE, bars=4)


async def test_an_expression_that_takes_hours_is_refused(logs: Logs) -> None:
    client = Client(logs)
    await client.upload(VICTIM, "calm")
    for _ in range(2):
        answer = await client.ask("getLogs", regexp=CATASTROPHIC)
        assert answer["error"]["code"] == "bad-request"
        assert "too long" in answer["error"]["message"]
        assert await client.texts(regexp="^c") == ["calm"]


async def test_an_expression_is_not_called_slow_because_its_process_was_killed_before(
    logs: Logs,
) -> None:
    client = Client(logs)
    await client.upload("calm")
    assert await client.texts(regexp="^c") == ["calm"]
    started = logs.service._expressions._lane._process
    assert started is not None
    started[0].kill()
    await asyncio.to_thread(started[0].wait)
    assert await client.texts(regexp="^c") == ["calm"]


async def test_an_expression_that_takes_hours_holds_up_no_other_reader(logs: Logs) -> None:
    client = Client(logs)
    await client.upload(VICTIM, "calm")
    limited, endless = logs.service._expressions, Expressions(limit_s=1e6, patience_s=1e6)
    logs.service._expressions = endless
    # As many as may wait, and more than the database has threads.
    slow = [asyncio.create_task(Client(logs).texts(regexp=CATASTROPHIC)) for _ in range(8)]
    await until(lambda: len(logs.service._matching._waiting.get(ANYONE.name, ())) == 7)
    for number in range(3):
        await client.upload(f"more {number}")
        assert await client.texts(limit=1) == [f"more {number}"]
        assert await client.texts(contains="CALM") == ["calm"]
        asked = query(Kind.LOGS, filter_of(contains="calm"), until=NOW + 1)
        counted = await logs.service.histogram(asked, ANYONE, bars=1)
        assert counted.levels["info"] == [1]
    follower = Client(logs)
    assert (await follower.ask("followLogs", regexp="^x"))["status"] == "ok"
    await client.upload("x", "y")
    await until(follower.followed)
    assert follower.followed() == ["x"]
    assert not any(task.done() for task in slow)
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    assert endless._lane._process is None, "what was left alone has ended"
    logs.service._expressions = limited
    assert await client.texts(regexp="^c") == ["calm"]


async def test_a_live_tail_gets_what_matches_in_order(logs: Logs) -> None:
    client, follower = Client(logs), Client(logs)
    answer = await follower.ask("followLogs", regexp="(")
    assert answer["error"]["code"] == "bad-request"
    await follower.ask("followLogs", regexp=r"\b7", level="info")
    for start in range(0, 5000, 2500):
        await client.upload(*(f"{n % 10} {n}" for n in range(start, start + 2500)))
    expected = [f"{n % 10} {n}" for n in range(5000) if re.search(r"\b7", f"{n % 10} {n}")]
    await until(lambda: len(follower.followed()) >= len(expected))
    assert follower.followed() == expected
    assert all(message["dropped"] == 0 for message in follower.live)


async def test_a_live_tail_that_takes_hours_is_ended_with_an_error(logs: Logs) -> None:
    client, slow, other = Client(logs), Client(logs), Client(logs)
    await slow.ask("followLogs", id=7, regexp=CATASTROPHIC)
    await other.ask("followLogs", regexp="^c")
    await client.upload(VICTIM, "calm")
    await until(lambda: len(slow.answers) == 2 and other.followed())
    assert slow.answers[1]["id"] == 7
    assert slow.answers[1]["action"] == "followLogs"
    assert slow.answers[1]["error"]["code"] == "bad-request"
    assert not slow.session.following
    assert other.session.following
    assert other.followed() == ["calm"]


class Follower:
    def __init__(self) -> None:
        self.got = 0
        self.missed = 0

    def offer(self, message: LiveMessage) -> None:
        self.got += message.count
        self.missed += message._missed

    def catch_up(self) -> None:
        pass


async def test_what_waits_for_a_live_tail_is_bounded_and_counted() -> None:
    tail = LiveTail()
    follower = Follower()
    tail.follow(follower, Filter(regexp="x"))
    searching = asyncio.create_task(tail.search())
    large = [Entry("info", NOW, "a", "x" * 1000) for _ in range(1000)]
    for _ in range(20):
        tail.publish(large)
        await tail._idle.wait()
    matching = asyncio.create_task(tail.match())
    await tail.settled()
    tail.flush()
    assert follower.got == 20_000
    assert 0 < follower.missed < 20_000
    for task in (searching, matching):
        task.cancel()
    await asyncio.gather(searching, matching, return_exceptions=True)
    await tail.close()


async def test_a_tail_that_begins_gets_nothing_that_waited_before_it() -> None:
    tail = LiveTail()
    early, late = Follower(), Follower()
    tail.follow(early, Filter(regexp="x"))
    tail.publish([Entry("info", NOW, "a", "x")])
    tail.follow(late, Filter(regexp="x"))
    tail.publish([Entry("info", NOW, "a", "xx")])
    matching = asyncio.create_task(tail.match())
    await tail.settled()
    tail.flush()
    assert (early.got, late.got) == (2, 1)
    matching.cancel()
    await asyncio.gather(matching, return_exceptions=True)
    await tail.close()
