"""What getLogs gives: which entries, in which order, in which pages."""

from __future__ import annotations

import random
from typing import Any

import pytest

from monitor.logs.levels import LEVELS
from monitor.logs.part import Logs
from monitor.store import DatabaseSettings, Store
from tests.logs.running import NOW, Client, Clock, line, running
from tests.store.opened import opened

ODD_CASES = [
    *("İstanbul", "ISTANBUL", "ıstanbul", "straße", "STRASSE", "ẞ", "ΟΔΟΣΕΔΩ", "οδος", "ﬁn", "Fin"),
    *(
        "\u212a",
        "k",
        "ÉCOLE",
        "école",
        "e\u0301cole",
        "a%b_c\\d",
        "A%B",
        "ǅ",
        "ǆ",
        "ab\ncd",
        "B\nC",
    ),
]


async def test_what_is_uploaded_is_listed_exactly_newest_first(logs: Logs) -> None:
    odd = [
        "",
        "tab\tnew\nline\r\\N \\. \\",
        "ěščř 漢字 🙂",
        "'; DROP TABLE log_entry; --",
        "%s \x7f\x01",
    ]

    client = Client(logs)
    items = [
        line(text, time=NOW - 5 + number + 0.123456, level=LEVELS[number])
        for number, text in enumerate(odd)
    ]
    answer = await client.ask("uploadLogs", id="x", logs=items)
    assert answer == {
        "action": "uploadLogs",
        "status": "ok",
        "id": "x",
        "accepted": 5,
        "rejected": [],
    }
    answer = await client.ask("getLogs", id=9)
    assert answer == {
        "action": "getLogs",
        "status": "ok",
        "id": 9,
        "logs": items[::-1],
        "cursor": None,
    }


async def test_filters_are_exact(logs: Logs) -> None:
    client = Client(logs)
    items = [
        line(f"{sender} {level} {word}", sender=sender, level=level)
        for sender in ("a", "A", "ab", "a%")
        for level in LEVELS
        for word in ("100% Wörk", "10_0 work")
    ]
    assert (await client.ask("uploadLogs", logs=items))["accepted"] == 40

    async def found(**query: Any) -> set[str]:
        texts = await client.texts(**query)
        assert len(texts) == len(set(texts))
        return set(texts)

    def expected(keep: Any) -> set[str]:
        return {item["message"] for item in items if keep(item)}

    for sender in ("a", "A", "a%", "b", "%"):
        assert await found(sender=sender) == expected(lambda i: i["sender"] == sender)  # noqa: B023
    assert await found(level=40) == expected(lambda i: i["level"] == "error")
    severe = ("error", "critical")
    assert await found(min_level="error") == expected(lambda i: i["level"] in severe)
    assert await found(min_level="error", level="info") == set()
    for text in ("WÖRK", "work", "100%", "10_0", "0% w", "\\", "_"):
        assert await found(contains=text) == expected(
            lambda i: text.lower() in i["message"].lower()  # noqa: B023
        )
    both = expected(lambda i: i["sender"] == "a" and i["level"] == "debug")
    assert await found(sender="a", level="debug") == both


async def test_contains_means_the_same_in_a_query_and_in_a_live_tail(logs: Logs) -> None:
    client, sender = Client(logs), Client(logs)
    await sender.upload(*ODD_CASES)
    for number, needle in enumerate([*ODD_CASES, "%", "_", "\\", "ss", "i", "\u0307", "ΟΔΟΣ"]):
        name = f"sender-{number}"
        expected = [text for text in ODD_CASES if needle.casefold() in text.casefold()]
        assert needle not in ODD_CASES or needle in expected
        got = set(await client.texts(contains=needle))
        # Upper case makes no difference between the i with and without a dot.
        dotless = {text for text in ODD_CASES if needle.upper() in text.lower().upper()}
        assert set(expected) <= got <= set(expected) | dotless, needle
        await client.ask("followLogs", contains=needle, sender=name)
        client.live.clear()
        await sender.upload(*ODD_CASES, sender=name)
        logs.service.tail.flush()
        assert set(client.followed()) == got, needle


async def test_a_window_is_never_left_whatever_is_asked_and_before_any_purge(store: Store) -> None:
    clock = Clock()
    async with running(store, clock, timewindow=60) as logs:
        client = Client(logs)
        await client.ask(
            "uploadLogs", logs=[line(f"-{age}", time=NOW - age) for age in (0, 5, 30, 59)]
        )
        assert await client.texts() == ["-0", "-5", "-30", "-59"]
        assert await client.texts(timewindow=10) == ["-0", "-5"]
        assert await client.texts(timewindow=5) == ["-0", "-5"]
        assert await client.texts(timewindow=1e9) == ["-0", "-5", "-30", "-59"]
        clock.now += 1.5
        assert await client.texts(timewindow=1e9) == ["-0", "-5", "-30"]
        clock.now += 40
        assert await client.texts() == ["-0", "-5"]
        clock.now += 100
        assert await client.texts() == []


async def test_pages_are_stable_under_equal_times_and_new_entries(logs: Logs) -> None:
    client = Client(logs)
    for group in range(6):
        await client.upload(*(f"{group}.{n}" for n in range(7)), time=NOW - group // 3)
    whole = await client.texts()
    assert len(whole) == 42
    got: list[str] = []
    cursor = None
    for _ in range(100):
        answer = await client.ask("getLogs", limit=4, cursor=cursor)
        got += [entry["message"] for entry in answer["logs"]]
        cursor = answer["cursor"]
        await client.upload("new", time=NOW + 1)
        if cursor is None:
            break
    assert got == whole


async def test_pages_go_on_over_a_purge_and_a_cursor_fits_any_query(store: Store) -> None:
    clock = Clock()
    async with running(store, clock, timewindow=600) as logs:
        client = Client(logs)
        items = [line(str(n), time=NOW - 10 * n, sender="ab"[n % 2]) for n in range(60)]
        assert (await client.ask("uploadLogs", logs=items))["accepted"] == 60
        notices = [line(f"n{n}", time=NOW - 10 * n - 5) for n in range(60)]
        await client.ask("uploadNotifications", notifications=notices)
        page = await client.ask("getLogs", limit=20)
        clock.now += 300  # of 600 s; whole partitions go
        await logs.retain()
        rest = await client.texts(cursor=page["cursor"])
        assert rest == [str(n) for n in range(20, 31)]
        # It is a place in time, whatever is asked next.
        assert await client.texts(cursor=page["cursor"], sender="a") == rest[::2]
        other = await client.ask("getNotifications", cursor=page["cursor"], limit=2)
        assert [entry["message"] for entry in other["notifications"]] == ["n19", "n20"]
        clock.now += 1000
        await logs.retain()
        assert await client.texts(cursor=page["cursor"]) == []


async def test_a_page_that_ends_exactly_has_no_cursor(logs: Logs) -> None:
    client = Client(logs)
    await client.upload("a", "b", "c")
    assert (await client.ask("getLogs", limit=3))["cursor"] is None
    assert (await client.ask("getLogs", limit=2))["cursor"] is not None


async def test_a_page_is_bounded_in_bytes_and_goes_on_where_it_ended(store: Store) -> None:
    async with running(store, Clock(), max_entry_bytes=1000, max_message_bytes=5000) as logs:
        client = Client(logs)
        sizes = [1000, 0, 999, 1000, 1000, 1000, 3, 500, 1000, 1000, 1000, 1000, 0, 0]
        for number, size in enumerate(sizes):
            await client.upload("é" * (size // 2) + "x" * (size % 2), time=NOW + number)
        for action, kept in (("getLogs", sizes), ("getNotifications", [])):
            found: list[int] = []
            pages, cursor = [], None
            while True:
                answer = await client.ask(action, limit=9, cursor=cursor)
                entries = answer[action[3:].lower()]
                page = [len(entry["message"].encode()) for entry in entries]
                assert sum(page) <= 5000
                found += page
                pages.append(len(page))
                cursor = answer["cursor"]
                if cursor is None:
                    break
            assert found == kept[::-1]
            assert pages in ([8, 6], [0])
        # An entry that was allowed once is a page of its own.
        logs.service.settings = logs.service.settings.replace(max_message_bytes=100)
        first = await client.ask("getLogs", limit=5)
        second = await client.ask("getLogs", limit=5, cursor=first["cursor"])
        assert [len(entry["message"]) for entry in first["logs"]] == [0, 0]
        assert [len(entry["message"].encode()) for entry in second["logs"]] == [1000]
        assert second["cursor"] is not None


@pytest.mark.integration_test
async def test_entries_with_characters_that_the_database_does_not_have_are_found(
    postgres_server: Any,
) -> None:
    name = f"latin_{random.getrandbits(48)}"
    postgres_server.execute(f"CREATE DATABASE {name} ENCODING LATIN1 TEMPLATE template0")

    database = DatabaseSettings(url=postgres_server.url(name))
    async with opened(database) as store, running(store, Clock()) as logs:
        client = Client(logs)
        texts = ("école", "a 漢 字", "Síť ÿ Ǆ")
        assert (await client.upload(*texts, sender="字"))["accepted"] == 3
        assert await client.texts(contains="ÉCO") == ["école"]
        assert await client.texts(contains="A 漢") == ["a 漢 字"]
        for text in ("Síť", "síť", "SÍŤ", "Ÿ", "ÿ", "ǆ", "ǅ"):
            assert await client.texts(contains=text) == ["Síť ÿ Ǆ"], text
        assert await client.texts(regexp="漢.字$", sender="字") == ["a 漢 字"]


async def test_the_window_is_that_of_when_the_answer_is_read(scratch: DatabaseSettings) -> None:
    clock = Clock()
    async with opened(scratch) as store, running(store, clock) as logs:
        client = Client(logs)
        await client.upload("old", time=NOW - 59)
        read = store.read

        async def late(*args: Any, **options: Any) -> Any:
            clock.now += 2  # it waits for a thread
            return await read(*args, **options)

        store.read = late  # type: ignore[method-assign]
        assert await client.texts() == []


@pytest.mark.parametrize("back", [-1e6, -3600, 3600, 1e6])
async def test_a_clock_that_jumps_returns_nothing_too_old_and_stores_on(
    store: Store, back: float
) -> None:
    clock = Clock()
    async with running(store, clock) as logs:
        client = Client(logs)
        await client.upload("before", time=NOW - 30)
        clock.now += back
        await logs.retain()
        assert (await client.upload("then", time=clock.now))["accepted"] == 1
        # A clock that is set back has the earlier entries ahead of it; they are not old.
        assert await client.texts() == (["before", "then"] if back < 0 else ["then"])
        clock.now = NOW
        await logs.retain()
        assert (await client.upload("now"))["accepted"] == 1
        texts = await client.texts()
        assert ("before" in texts) == (back < 0)
        assert texts[-1 if back > 0 else 0] == "now"
