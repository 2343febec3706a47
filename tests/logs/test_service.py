from __future__ import annotations

import asyncio
import json
import random
from sqlite3 import DataError
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor.logs.levels import LEVELS
from monitor.store import DatabaseSettings
from monitor.tokens import Principal, Role
from tests.logs.running import NOW, Client, Clock, line, opened, run, running, until
from tests.logs.test_actions import messages
from tests.logs.test_entries import json_values


def test_what_is_uploaded_is_listed_exactly_newest_first(database: DatabaseSettings) -> None:
    odd = [
        "",
        "tab\tnew\nline\r\\N \\. \\",
        "ěščř 漢字 🙂",
        "'; DROP TABLE log_entry; --",
        "%s \x7f\x01",
    ]

    async def test() -> None:
        async with opened(database) as store, running(store, Clock()) as logs:
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

    run(test())


def test_filters_are_exact(database: DatabaseSettings) -> None:
    async def test() -> None:
        async with opened(database) as store, running(store, Clock()) as logs:
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

    run(test())


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


def test_contains_means_the_same_in_a_query_and_in_a_live_tail(database: DatabaseSettings) -> None:
    async def test() -> None:
        async with opened(database) as store, running(store, Clock()) as logs:
            client, sender = Client(logs), Client(logs)
            await sender.upload(*ODD_CASES)
            for number, needle in enumerate(
                [*ODD_CASES, "%", "_", "\\", "ss", "i", "\u0307", "ΟΔΟΣ"]
            ):
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

    run(test())


def test_a_window_is_never_left_whatever_is_asked_and_before_any_purge(
    database: DatabaseSettings,
) -> None:
    async def test() -> None:
        clock = Clock()
        async with opened(database) as store, running(store, clock, timewindow=60) as logs:
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

    run(test())


def test_pages_are_stable_under_equal_times_and_new_entries(database: DatabaseSettings) -> None:
    async def test() -> None:
        async with opened(database) as store, running(store, Clock()) as logs:
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

    run(test())


def test_pages_go_on_over_a_purge_and_a_cursor_fits_any_query(database: DatabaseSettings) -> None:
    async def test() -> None:
        clock = Clock()
        async with opened(database) as store, running(store, clock, timewindow=600) as logs:
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

    run(test())


def test_a_page_that_ends_exactly_has_no_cursor(database: DatabaseSettings) -> None:
    async def test() -> None:
        async with opened(database) as store, running(store, Clock()) as logs:
            client = Client(logs)
            await client.upload("a", "b", "c")
            assert (await client.ask("getLogs", limit=3))["cursor"] is None
            assert (await client.ask("getLogs", limit=2))["cursor"] is not None

    run(test())


def test_each_entry_is_judged_by_itself(database: DatabaseSettings) -> None:
    async def test() -> None:
        async with opened(database) as store, running(store, Clock()) as logs:
            client = Client(logs)
            items = [
                line("good"),
                line("old", time=NOW - 61),
                line("ahead", time=NOW + 3601),
                line("level", level="loud"),
                line("x" * 300_000),
                line("nul\0"),
                line("fine", time=NOW + 3600),
            ]
            answer = await client.ask("uploadLogs", logs=items)
            assert answer["accepted"] == 2
            assert [(each["index"], each["reason"]) for each in answer["rejected"]] == [
                (1, "too-old"),
                (2, "in-future"),
                (3, "unknown-level"),
                (4, "entry-too-large"),
                (5, "bad-text"),
            ]
            assert await client.texts() == ["fine", "good"]
            single = await client.ask("uploadLogs", **line("old", time=NOW - 61))
            assert single["status"] == "error"
            assert single["error"]["code"] == "bad-request"
            assert single["rejected"][0]["reason"] == "too-old"
            large = await client.ask("uploadLogs", **line("x" * 300_000))
            assert large["error"]["code"] == "too-large"
            too_many = await client.ask("uploadLogs", logs=[line("x")] * 10_001)
            assert too_many["error"]["code"] == "too-large"
            assert await client.texts() == ["fine", "good"]

    run(test())


def test_a_repeated_upload_answers_as_before_and_stores_nothing(
    database: DatabaseSettings,
) -> None:
    async def test() -> None:
        clock = Clock()
        async with opened(database) as store, running(store, clock) as logs:
            client = Client(logs)
            upload: dict[str, Any] = {
                "upload_id": "u1",
                "logs": [line("a"), line("b", level="loud"), line("c")],
            }
            first = await client.ask("uploadLogs", id=1, **upload)
            assert first["accepted"] == 2
            # Both are on their way at once, and so are others.
            await asyncio.gather(*(client.send("uploadLogs", id=1, **upload) for _ in range(5)))
            clock.now += 59  # the entries would be judged differently by now
            clock.now += 10
            await client.send("uploadLogs", id=1, **upload)
            await client.session.answered()
            assert client.answers == [first] * 7
            clock.now = NOW
            assert sorted(await client.texts()) == ["a", "c"]
            # Another sender's, another kind's and another id are others.
            await client.ask("uploadLogs", upload_id="u1", logs=[line("d", sender="x")])
            await client.ask("uploadLogs", upload_id="u2", logs=[line("e")])
            await client.ask("uploadNotifications", upload_id="u1", notifications=[line("n")])
            assert sorted(await client.texts()) == ["a", "c", "d", "e"]

    run(test())


@pytest.mark.integration_test
def test_one_upload_to_two_instances_at_once_is_stored_once(postgres_url: str) -> None:
    async def test() -> None:
        database = DatabaseSettings(url=postgres_url)
        async with (
            opened(database) as one,
            opened(database) as two,
            running(one, Clock()) as here,
            running(two, Clock()) as there,
        ):
            clients = [Client(logs) for logs in (here, there) for _ in range(5)]
            # Each in an order of its own, so that their commits hold some and want others.
            for client in clients:
                numbers = random.sample(range(60), 60)
                for number in numbers:
                    logs = [line(str(number)), line("bad", level="loud")]
                    await client.send("uploadLogs", id=number, upload_id=str(number), logs=logs)
            for client in clients:
                await client.session.answered()
                assert [answer["accepted"] for answer in client.answers] == [1] * 60
                assert {answer["rejected"][0]["index"] for answer in client.answers} == {1}
            assert sorted(await clients[0].texts(), key=int) == [str(n) for n in range(60)]

    run(test())


def test_an_entry_that_is_repeated_when_it_is_too_old_answers_as_before(
    database: DatabaseSettings,
) -> None:
    async def test() -> None:
        clock = Clock()
        async with opened(database) as store, running(store, clock) as logs:
            client = Client(logs)
            good = await client.ask("uploadLogs", id=1, upload_id="g", **line("good"))
            loud = line("bad", level="loud")
            bad = await client.ask("uploadLogs", id=2, upload_id="b", **loud)
            assert (good["accepted"], bad["error"]["code"]) == (1, "bad-request")
            clock.now += 100
            assert await client.ask("uploadLogs", id=1, upload_id="g", **line("good")) == good
            assert await client.ask("uploadLogs", id=2, upload_id="b", **loud) == bad
            assert await client.texts() == []

    run(test())


def test_an_upload_is_known_by_the_first_sender_that_is_one(database: DatabaseSettings) -> None:
    """A sender that no index could hold must not refuse what others upload meanwhile."""
    huge = "".join(random.Random(7).choices("0123456789abcdef", k=50_000))

    async def test() -> None:
        async with opened(database) as store, running(store, Clock()) as logs:
            client, other = Client(logs), Client(logs)
            for number, bad in enumerate((huge, 7, None, "", "a\0")):
                upload_id = f"u{number}"
                for sender in ("one", "two"):
                    items = [line("bad", sender=bad), line("good", sender=sender)]
                    await client.send("uploadLogs", logs=items, upload_id=upload_id)
                    await other.send("uploadLogs", **line("beside"))
                await client.send("uploadLogs", upload_id=upload_id, **line("bad", sender=bad))
            await client.session.answered()
            await other.session.answered()
            assert {answer["status"] for answer in other.answers} == {"ok"}
            assert [answer.get("accepted") for answer in client.answers] == [1, 1, 0] * 5
            assert len(await client.texts(sender="one")) == 5
            assert len(await client.texts(sender="two")) == 5
            assert logs.state().health == "ok"

    run(test())


def test_a_page_is_bounded_in_bytes_and_goes_on_where_it_ended(database: DatabaseSettings) -> None:
    async def test() -> None:
        async with (
            opened(database) as store,
            running(store, Clock(), max_entry_bytes=1000, max_message_bytes=5000) as logs,
        ):
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

    run(test())


def test_a_query_that_the_database_refuses_is_an_error_on_a_connection_that_lives(
    postgres_server: Any,
) -> None:
    name = f"latin_{random.getrandbits(48)}"
    postgres_server.execute(f"CREATE DATABASE {name} ENCODING LATIN1 TEMPLATE template0")

    async def test() -> None:
        database = DatabaseSettings(url=postgres_server.url(name))
        async with opened(database) as store, running(store, Clock()) as logs:
            client = Client(logs)
            assert (await client.upload("école", "漢"))["error"]["code"] == "bad-request"
            assert (await client.upload("école"))["accepted"] == 1
            for narrow in ({"contains": "漢"}, {"sender": "漢"}):
                refused = await client.ask("getLogs", **narrow)
                assert refused["error"]["code"] == "bad-request"
            assert await client.texts(contains="ÉCO") == ["école"]

    run(test())


def test_uploads_of_one_connection_are_answered_in_order_and_seen_by_its_next_query(
    database: DatabaseSettings,
) -> None:
    async def test() -> None:
        async with opened(database) as store, running(store, Clock()) as logs:
            client = Client(logs)
            for number in range(200):
                await client.send("uploadLogs", id=number, **line(str(number)))
                if number % 50 == 10:
                    await client.send("nonsense", id=number)
            await client.send("getLogs", limit=1000)
            assert len(client.answers[-1]["logs"]) == 200
            ids = [answer["id"] for answer in client.answers if "id" in answer]
            assert ids == sorted(ids)
            assert len(ids) == 204

    run(test())


def test_many_connections_share_commits(database: DatabaseSettings) -> None:
    async def test() -> None:
        async with opened(database) as store, running(store, Clock()) as logs:
            transactions = 0
            transaction = store.transaction

            async def counted(*args: Any, **options: Any) -> Any:
                nonlocal transactions
                transactions += 1
                return await transaction(*args, **options)

            store.transaction = counted  # type: ignore[method-assign]
            clients = [Client(logs) for _ in range(300)]
            await asyncio.gather(*(client.send("uploadLogs", **line("x")) for client in clients))
            await asyncio.gather(*(client.session.answered() for client in clients))
            assert all(client.answers[0]["accepted"] == 1 for client in clients)
            assert transactions < 30
            assert len(await clients[0].texts()) == 300

    run(test())


def test_the_window_is_that_of_when_the_answer_is_read(scratch: DatabaseSettings) -> None:
    async def test() -> None:
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

    run(test())


@pytest.mark.parametrize("back", [-1e6, -3600, 3600, 1e6])
def test_a_clock_that_jumps_returns_nothing_too_old_and_stores_on(
    database: DatabaseSettings, back: float
) -> None:
    async def test() -> None:
        clock = Clock()
        async with opened(database) as store, running(store, clock) as logs:
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

    run(test())


def test_notifications_are_kept_beyond_the_window_until_told_otherwise(
    database: DatabaseSettings,
) -> None:
    async def test() -> None:
        clock = Clock()
        async with opened(database) as store:
            async with running(store, clock) as logs:
                client = Client(logs)
                items = [line(f"n{age}", time=NOW - age) for age in (0, 1000, 10_000_000)]
                answer = await client.ask("uploadNotifications", notifications=items)
                assert answer["accepted"] == 3
                clock.now += 500
                await logs.retain()
                answer = await client.ask("getNotifications", contains="N1")
                assert [each["message"] for each in answer["notifications"]] == [
                    "n1000",
                    "n10000000",
                ]
                assert await client.texts() == []
                answer = await client.ask("getNotifications", timewindow=600)
                assert [each["message"] for each in answer["notifications"]] == ["n0"]
            async with running(store, clock, keep_notifications=2000) as logs:
                client = Client(logs)
                answer = await client.ask("getNotifications")
                assert [each["message"] for each in answer["notifications"]] == ["n0", "n1000"]
                await logs.retain()
                old = await client.ask("uploadNotifications", **line("old", time=NOW - 3000))
                assert old["error"]["code"] == "bad-request"
            async with running(store, clock) as logs:
                client = Client(logs)
                answer = await client.ask("getNotifications")
                assert [each["message"] for each in answer["notifications"]] == ["n0", "n1000"]

    run(test())


@pytest.mark.parametrize(
    ("principal", "upload", "read"),
    [
        (None, "unauthorized", "unauthorized"),
        (Principal("r", Role.READER), "forbidden", None),
        (Principal("addon-1", Role.SENDER), None, "forbidden"),
        (Principal("ops", Role.ADMIN), None, None),
    ],
)
def test_roles(
    database: DatabaseSettings, principal: Principal | None, upload: str | None, read: str | None
) -> None:
    async def test() -> None:
        async with opened(database) as store, running(store, Clock()) as logs:
            client = Client(logs, principal)

            async def code(action: str, **message: Any) -> str | None:
                answer = await client.ask(action, **message)
                return answer["error"]["code"] if answer["status"] == "error" else None

            assert await code("uploadLogs", **line("x")) == upload
            assert await code("uploadNotifications", **line("x")) == upload
            assert await code("getLogs") == read
            assert await code("getNotifications") == read
            assert await code("followLogs") == read

    run(test())


def test_a_senders_token_fixes_the_sender(database: DatabaseSettings) -> None:
    async def test() -> None:
        async with opened(database) as store, running(store, Clock()) as logs:
            device = Client(logs, Principal("addon-7", Role.SENDER))
            bare = {key: value for key, value in line("mine").items() if key != "sender"}
            answer = await device.ask("uploadLogs", logs=[bare, line("forged", sender="addon-1")])
            assert answer["accepted"] == 1
            assert answer["rejected"][0]["reason"] == "wrong-sender"
            forged = await device.ask("uploadLogs", **line("forged"))
            assert forged["error"]["code"] == "forbidden"
            entries = (await Client(logs).ask("getLogs"))["logs"]
            assert [(each["sender"], each["message"]) for each in entries] == [("addon-7", "mine")]

    run(test())


def test_rates_are_limited_for_each_connection_and_each_token(scratch: DatabaseSettings) -> None:
    async def test() -> None:
        elapsed = Clock(0.0)
        async with (
            opened(scratch) as store,
            running(store, Clock(), elapsed=elapsed, max_entries_per_second=10) as logs,
        ):
            first, second = Client(logs), Client(logs)
            assert (await first.upload(*"x" * 25))["accepted"] == 25
            limited = await first.ask("uploadLogs", id=3, **line("y"))
            assert limited["id"] == 3
            assert limited["error"]["code"] == "rate-limited"
            wait = limited["error"]["retry_after"]
            assert 0 < wait < 2
            assert (await second.upload("x"))["accepted"] == 1  # another connection
            elapsed.now += wait
            assert (await first.upload("x"))["accepted"] == 1
            token = Principal("addon-1", Role.SENDER)
            assert (await Client(logs, token).upload(*"x" * 25))["accepted"] == 25
            again = await Client(logs, token).upload("x")  # the same token on a new connection
            assert again["error"]["code"] == "rate-limited"

    run(test())


def test_open_connections_take_up_limits_at_a_reload(scratch: DatabaseSettings) -> None:
    async def test() -> None:
        elapsed = Clock(0.0)
        async with (
            opened(scratch) as store,
            running(store, Clock(), elapsed=elapsed, max_entries_per_second=1000) as logs,
        ):
            client = Client(logs)
            assert (await client.upload(*"x" * 1000))["accepted"] == 1000
            fewer = logs.service.settings.replace(max_entries_per_second=10)
            (await logs.prepare(fewer))()
            assert (await client.upload(*"x" * 25))["accepted"] == 25
            limited = await client.upload("x")
            assert limited["error"]["code"] == "rate-limited"
            # So long and not a moment less.
            elapsed.now += limited["error"]["retry_after"]
            assert (await client.upload("x"))["accepted"] == 1
            more = logs.service.settings.replace(max_entries_per_second=10**6)
            (await logs.prepare(more))()
            elapsed.now += 0.1
            assert (await client.upload(*"x" * 5000))["accepted"] == 5000
            assert (await client.upload(*"x" * 5000))["accepted"] == 5000

    run(test())


def test_who_has_no_valid_token_is_limited_too(scratch: DatabaseSettings) -> None:
    async def test() -> None:
        elapsed = Clock(0.0)
        async with (
            opened(scratch) as store,
            running(store, Clock(), elapsed=elapsed, max_entries_per_second=1) as logs,
        ):
            client = Client(logs, None)
            codes = [(await client.ask("getLogs"))["error"]["code"] for _ in range(4)]
            assert codes == ["unauthorized", "unauthorized", "rate-limited", "rate-limited"]

    run(test())


@pytest.mark.integration_test
def test_a_database_that_is_away_is_said_and_comes_back(
    postgres_server: Any, postgres_url: str
) -> None:
    async def test() -> None:
        database = DatabaseSettings(url=postgres_url, connect_timeout=2)
        async with opened(database) as store, running(store, Clock()) as logs:
            client, follower = Client(logs), Client(logs)
            await follower.ask("followLogs")
            await client.upload("before")
            postgres_server.stop()
            try:
                refused = await client.upload("lost")
                assert refused["error"]["code"] == "unavailable"
                assert refused["error"]["retry_after"] > 0
                assert "postgres" not in json.dumps(refused)
                assert (await client.ask("getLogs"))["error"]["code"] == "unavailable"
                assert logs.state().health == "degraded"
            finally:
                # In this thread: the server is told to end with the one that started it.
                postgres_server.start()

            async def stored() -> bool:
                return bool((await client.upload("after"))["status"] == "ok")

            async with asyncio.timeout(30):
                while not await stored():
                    await asyncio.sleep(0.05)
            assert set(await client.texts()) == {"before", "after"}
            await logs.retain()
            assert logs.state().health == "ok"
            await until(lambda: "after" in follower.followed())

    run(test())


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(messages | json_values, max_size=12))
def test_whatever_is_asked_is_answered_once_and_the_service_lives(
    tmp_path_factory: pytest.TempPathFactory, sent: list[Any]
) -> None:
    async def test() -> None:
        file = str(tmp_path_factory.mktemp("fuzz") / "monitor.db")
        async with opened(DatabaseSettings(file=file)) as store, running(store, Clock()) as logs:
            client = Client(logs)
            for message in sent:
                data = json.dumps(message).encode("utf-8", "surrogatepass")
                await client.session.receive(data, client.principal)
            await client.session.answered()
            assert len(client.answers) == len(sent)
            for answer in client.answers:
                assert answer["status"] in ("ok", "error")
                if answer["status"] == "error":
                    assert answer["error"]["code"] in (
                        "bad-request",
                        "unknown-action",
                        "too-large",
                    )
                    assert answer["error"]["message"]
            assert (await client.upload("alive"))["accepted"] == 1
            assert "alive" in await client.texts()

    run(test())


def test_a_group_with_entries_that_the_database_refuses_sinks_only_theirs(
    database: DatabaseSettings,
) -> None:
    async def test() -> None:
        async with opened(database) as store, running(store, Clock()) as logs:
            transaction = store.transaction

            async def picky(function: Any, **options: Any) -> Any:
                def refusing(connection: Any) -> Any:
                    done = function(connection)
                    rows = connection.query("SELECT 1 FROM log_entry WHERE message = 'poison'")
                    if rows:
                        raise DataError("no such text here")
                    return done

                return await transaction(refusing, **options)

            store.transaction = picky  # type: ignore[method-assign]
            clients = [Client(logs) for _ in range(9)]
            texts = ["poison" if number == 4 else f"good {number}" for number in range(9)]
            await asyncio.gather(
                *(c.send("uploadLogs", **line(t)) for c, t in zip(clients, texts, strict=True))
            )
            await asyncio.gather(*(client.session.answered() for client in clients))
            codes = [client.answers[0].get("error", {}).get("code") for client in clients]
            assert codes == [None] * 4 + ["bad-request"] + [None] * 4
            store.transaction = transaction  # type: ignore[method-assign]
            assert sorted(await clients[0].texts()) == sorted(set(texts) - {"poison"})

    run(test())


def test_shuffled_uploads_are_all_there_and_in_order_of_time(database: DatabaseSettings) -> None:
    async def test() -> None:
        async with opened(database) as store, running(store, Clock()) as logs:
            times = [NOW - 50 + number / 10 for number in range(500)]
            shuffled = random.Random(7).sample(times, len(times))
            clients = [Client(logs) for _ in range(10)]
            await asyncio.gather(
                *(
                    client.send("uploadLogs", logs=[line(str(t), time=t) for t in shuffled[n::10]])
                    for n, client in enumerate(clients)
                )
            )
            await asyncio.gather(*(client.session.answered() for client in clients))
            assert await clients[0].texts(limit=1000) == [str(t) for t in reversed(times)]

    run(test())
