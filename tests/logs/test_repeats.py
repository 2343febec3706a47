"""Uploads under one ``upload_id``: which are one upload sent again, and which another one."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.logs.entries import UploadDigest
from monitor.logs.part import Logs
from monitor.store import Connection, DatabaseSettings, Store
from monitor.tokens import Principal, Role
from tests.logs.running import NOW, Client, Clock, line, running, two_instances
from tests.logs.test_entries import json_values
from tests.store.opened import opened


def digest(*items: Any, **layout: Any) -> str:
    found = UploadDigest()
    found.add(
        [item if isinstance(item, bytes) else json.dumps(item, **layout).encode() for item in items]
    )
    return found.text()


def refused(answer: dict[str, Any], upload_id: str) -> bool:
    error = answer.get("error", {})
    words = f"upload_id: {upload_id!r} was used for another upload"
    return error.get("code") == "bad-request" and str(error["message"]).startswith(words)


async def test_a_repeated_upload_answers_as_before_and_stores_nothing(store: Store) -> None:
    clock = Clock()
    async with running(store, clock) as logs:
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


@pytest.mark.integration_test
async def test_one_upload_to_two_instances_at_once_is_stored_once(postgres_url: str) -> None:
    async with two_instances(postgres_url) as (here, there):
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


async def test_an_entry_that_is_repeated_when_it_is_too_old_answers_as_before(store: Store) -> None:
    clock = Clock()
    async with running(store, clock) as logs:
        client = Client(logs)
        good = await client.ask("uploadLogs", id=1, upload_id="g", **line("good"))
        loud = line("bad", level="loud")
        bad = await client.ask("uploadLogs", id=2, upload_id="b", **loud)
        assert (good["accepted"], bad["error"]["code"]) == (1, "bad-request")
        clock.now += 100
        assert await client.ask("uploadLogs", id=1, upload_id="g", **line("good")) == good
        assert await client.ask("uploadLogs", id=2, upload_id="b", **loud) == bad
        assert await client.texts() == []


async def test_an_upload_is_known_by_the_first_sender_that_is_one(logs: Logs) -> None:
    """A sender that no index could hold must not refuse what others upload meanwhile."""
    huge = "".join(random.Random(7).choices("0123456789abcdef", k=50_000))

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


@pytest.mark.parametrize("kind", ["Logs", "Notifications"])
async def test_another_upload_under_a_used_id_is_refused_and_not_stored(
    logs: Logs, kind: str
) -> None:
    client = Client(logs)
    key, upload, get = kind.lower(), f"upload{kind}", f"get{kind}"

    async def send(*entries: dict[str, Any]) -> dict[str, Any]:
        return await client.ask(upload, id=1, upload_id="u1", **{key: list(entries)})

    a, b, c = (line(text) for text in "abc")
    first = await send(a, b)
    assert first["accepted"] == 2
    others = ([c], [a], [b, a], [a, b, c], [a, c], [a, b | {"level": "error"}])
    for entries in (*others, [a, line("loud", level="loud")]):
        answer = await send(*entries)
        assert refused(answer, "u1"), answer
        assert answer["id"] == 1
    assert await send(a, b) == first
    stored = await client.ask(get)
    assert sorted(each["message"] for each in stored[key]) == ["a", "b"]
    assert logs.service.rejected["bad-request"] == len(others) + 1
    # One that is refused takes no id.
    assert (await client.ask(upload, upload_id="u2", **{key: [c]}))["accepted"] == 1


async def test_uploads_under_one_id_at_once_are_told_apart(logs: Logs) -> None:
    clients = [Client(logs) for _ in range(6)]
    for number, client in enumerate(clients):
        # All are on their way before the first is committed.
        await client.send("uploadLogs", upload_id="u1", logs=[line(str(number % 2))])
    for client in clients:
        await client.session.answered()
    answers = [client.answers[0] for client in clients]
    assert [answer["status"] for answer in answers] == ["ok", "error"] * 3
    assert all(refused(answer, "u1") for answer in answers[1::2])
    assert await clients[0].texts() == ["0"]
    assert logs.service.committer.stored == 1


@pytest.mark.integration_test
async def test_of_two_uploads_to_two_instances_one_has_the_id(postgres_url: str) -> None:
    async with two_instances(postgres_url) as (here, there):
        clients = [Client(here), Client(there)]

        async def upload_all(text: str, client: Client) -> None:
            for number in range(60):
                await client.send("uploadLogs", upload_id=str(number), logs=[line(text)])
            await client.session.answered()

        await asyncio.gather(*map(upload_all, ("here", "there"), clients))
        for number in range(60):
            answers = [client.answers[number] for client in clients]
            assert sorted(answer["status"] for answer in answers) == ["error", "ok"]
            assert any(refused(answer, str(number)) for answer in answers)
        assert len(await clients[0].texts()) == 60


async def test_a_repeat_is_known_for_one_however_its_entries_are_judged_now(store: Store) -> None:
    clock = Clock()
    async with running(store, clock) as logs:
        sender = Client(logs, Principal("addon-1", Role.SENDER))
        batch = [line("a"), line("wrong", sender="x"), line("late", time=NOW - 100), 7, {}]
        first = await sender.ask("uploadLogs", upload_id="b", logs=batch)
        single = line("one", sender=None)
        alone = await sender.ask("uploadLogs", id=1, upload_id="s", **single)
        assert (first["accepted"], alone["accepted"]) == (1, 1)
        clock.now += 1000
        assert await sender.ask("uploadLogs", upload_id="b", logs=batch) == first
        # A repeated request has another id and a fresh token.
        again = await sender.ask("uploadLogs", id=2, token="t", upload_id="s", **single)
        assert again == {**alone, "id": 2}
        assert refused(await sender.ask("uploadLogs", upload_id="s", **line("other")), "s")


async def test_uploads_that_an_earlier_version_answered_are_taken_for_repeated(
    logs: Logs,
    store: Store,
) -> None:
    def forget(connection: Connection) -> None:
        connection.execute("UPDATE log_upload SET digest = NULL")

    client = Client(logs)
    first = await client.ask("uploadLogs", upload_id="u1", logs=[line("a")])
    await store.transaction(forget)
    for text in "ab":
        assert await client.ask("uploadLogs", upload_id="u1", logs=[line(text)]) == first
    assert await client.texts() == ["a"]


async def test_a_large_batch_is_compared_whole(scratch: DatabaseSettings) -> None:
    async with opened(scratch) as store, running(store, Clock()) as logs:
        client = Client(logs)
        batch = [line(str(number)) for number in range(2500)]
        first = await client.ask("uploadLogs", upload_id="u1", logs=batch)
        assert first["accepted"] == 2500
        assert await client.ask("uploadLogs", upload_id="u1", logs=batch) == first
        for place in (0, 1000, 2499):
            other = [*batch[:place], line("other"), *batch[place + 1 :]]
            answer = await client.ask("uploadLogs", upload_id="u1", logs=other)
            assert refused(answer, "u1")


@given(st.lists(json_values, max_size=4), st.lists(json_values, max_size=4))
def test_a_digest_tells_lists_of_anything_apart_as_json_does(
    one: list[Any], two: list[Any]
) -> None:
    assert digest(*one) == digest(*json.loads(json.dumps(one)))
    whole = [{"level": "info", "time": 1.0, "message": json.dumps(item)} for item in one]
    other = [{"level": "info", "time": 1.0, "message": json.dumps(item)} for item in two]
    assert (digest(*whole) == digest(*other)) == (whole == other)


def test_how_an_entry_is_written_makes_no_other_upload() -> None:
    entry = line("ž\n", time=5.0)
    same = [
        digest(entry),
        digest(entry, ensure_ascii=False, indent=2),
        digest(dict(reversed(entry.items()))),
        digest({"action": "uploadLogs", "id": 7, "token": "x", **entry, "file": "main.c"}),
        digest({**entry, "time": 6.5}),
    ]
    assert len(set(same)) == 1
    for odd in ({"level": [1]}, {"message": None}, {"sender": 5}):
        wrong = entry | odd
        assert digest(wrong) == digest({"id": 7, **dict(reversed(wrong.items()))}) != same[0]
    others = [
        digest({**entry, "sender": None}),
        digest({**entry, "message": "z"}),
        digest(entry, entry),
        digest(),
        digest(b"\xff"),
        digest(b"\xfe"),
    ]
    assert len({same[0], *others}) == 7
