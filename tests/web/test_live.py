"""The live feed as a page sees it: all at first, then what changes, and nothing it may not see."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from monitor.relay.client_position import End, Event, Gap, Message, Position, Reset
from monitor.web.live.page import LivePage, frame_of
from tests.relay.broker import Broker
from tests.waiting import LIMIT_S, wait_for
from tests.web.whole import Whole, whole

pytestmark = pytest.mark.integration_test


@pytest.fixture(scope="module")
def daemon() -> Iterator[Whole]:
    with whole(tokens=True) as running:
        assert running.request("POST", "/job", json={"id": 1, **running.mock()}).status_code == 201
        running.wait_for_state(1, "up")
        yield running


def page(
    daemon: Whole, role: str | None = "admin", query: str = "", **options: Any
) -> ClientConnection:
    headers = {"authorization": f"Bearer {daemon.tokens[role]}"} if role else {}
    url = f"ws://127.0.0.1:{daemon.port}/live{query}"
    client: ClientConnection = connect(url, additional_headers=headers, max_size=2**24, **options)
    return client


def until(client: ClientConnection, wanted: Callable[[dict[str, Any]], Any]) -> Any:
    """Return the first message that is wanted; there is one each second, so this ends."""
    for _ in range(500):
        message = json.loads(client.recv(timeout=LIMIT_S))
        if wanted(message):
            return message
    raise AssertionError("it never came")


def of(kind: str) -> Callable[[dict[str, Any]], bool]:
    return lambda message: message.get("type") == kind


def test_a_page_is_told_all_and_then_what_changes(daemon: Whole) -> None:
    with page(daemon) as client:
        hello, status, begin, jobs = (json.loads(client.recv(timeout=LIMIT_S)) for _ in range(4))
        assert (hello["type"], hello["role"]) == ("hello", "admin")
        assert {"jobs", "history", "logs", "relay", "channels"} <= set(hello["has"])
        assert status["parts"]["probes"]["health"] == "ok"
        assert (begin["reset"], begin["left"], begin["items"]) == (True, 1, [])
        assert (jobs["add"], jobs["left"]) == (True, 0)
        assert jobs["items"] == [
            daemon.get("/job/1")
            | {"last": jobs["items"][0]["last"]}
            | {"next_run": jobs["items"][0]["next_run"]}
        ]
        line = until(client, lambda m: m.get("type") == "jobs" and not m.get("add"))["items"][0]
        assert line["id"] == 1
        assert line["at"] > jobs["items"][0]["last"]["checked_at"] - 1
        # Another one is created: all pages get it.
        assert daemon.request("POST", "/job", json={"id": 2, **daemon.mock()}).status_code == 201
        new = until(client, lambda m: m.get("type") == "jobs" and m.get("add"))
        assert 2 in [job["id"] for job in new["items"]]
        # It goes down: that is a change of its own.
        daemon.wait_for_state(2, "up")
        ill = daemon.mock("status=500&delay=0")
        assert daemon.request("PUT", "/job/2", json=ill).status_code == 200
        change = until(client, of("changes"))["items"][-1]
        assert (change["kind"], change["job_id"], change["to"]) == ("job", 2, "down")
        assert change["detail"].startswith("bad-status")
        daemon.request("DELETE", "/job/2")
        until(client, lambda m: m.get("gone") == [2])


def test_a_snapshot_comes_in_pieces_and_compressed_if_the_page_asks(daemon: Whole) -> None:
    count = 245
    for job_id in range(1000, 1000 + count):
        body = {"id": job_id, "url": "http://127.0.0.1:1/", "active": False}
        assert daemon.request("POST", "/job", json=body).status_code == 201
    with page(daemon, query="?gzip") as client:
        ids: set[int] = set()
        left, pieces = -1, 0
        while left != 0:
            data = client.recv(timeout=LIMIT_S)
            message = json.loads(gzip.decompress(data) if isinstance(data, bytes) else data)
            if message["type"] != "jobs" or "left" not in message:
                continue
            # The first piece is small, so that there is something to see at once.
            assert len(message["items"]) <= (200 if ids else 40)
            ids |= {job["id"] for job in message["items"]}
            left = message["left"]
            pieces += isinstance(data, bytes)
        assert ids >= set(range(1000, 1000 + count))
        assert pieces == 3


def test_what_is_down_comes_first(daemon: Whole) -> None:
    for job_id in (900, 901):
        body = {"id": job_id, **daemon.mock("status=500&delay=0")}
        assert daemon.request("POST", "/job", json=body).status_code == 201
        daemon.wait_for_state(job_id, "down")
    with page(daemon) as client:
        first = until(client, lambda m: m.get("type") == "jobs" and m.get("add"))
    assert [job["id"] for job in first["items"][:2]] == [900, 901]
    assert {job["state"] for job in first["items"][2:]} - {"down"}


async def test_news_never_overtakes_the_snapshot_that_it_changes() -> None:
    """A large message is compressed in a thread; what is sent meanwhile is newer."""
    sent: list[bytes] = []
    connection = SimpleNamespace(query="gzip", write=sent.append)
    shown = LivePage(connection, relay=None, logs=None)  # type: ignore[arg-type]
    large = asyncio.create_task(shown.write_large({"items": "x" * 100_000}))
    await asyncio.sleep(0)
    shown.write({"type": "news"})
    await large
    assert b"".join(sent).endswith(frame_of({"type": "news"}))
    assert sent[0][0] & 0xF == 2  # binary


def test_who_may_not_see_channels_gets_none(daemon: Whole) -> None:
    with page(daemon, "reader") as client:
        hello = json.loads(client.recv(timeout=LIMIT_S))
        assert "channels" not in hello["has"]
        client.send(json.dumps({"watch": ["channels"]}))
        client.send(json.dumps({"type": "subscribe", "channel": "c"}))
        assert "admins" in until(client, of("error"))["message"]
        seen = [json.loads(client.recv(timeout=LIMIT_S)) for _ in range(6)]
        assert not {"channels", "absent"} & {message.get("type") for message in seen}


def test_a_sender_and_a_page_of_another_site_get_nothing(daemon: Whole) -> None:
    with page(daemon, "sender") as client, pytest.raises(ConnectionClosed) as closed:
        client.recv(timeout=LIMIT_S)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008
    with pytest.raises(InvalidStatus) as refused, page(daemon, None, origin="http://evil.example"):
        pass
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize(
    "rubbish",
    [
        "",
        "nonsense",
        "[]",
        '{"watch": 3}',
        '{"type": []}',
        '{"type": "x"}',
        "null",
        "[" * 60_000,
        '{"x":' * 9_000,
    ],
)
def test_what_is_not_understood_is_said_and_the_page_lives_on(daemon: Whole, rubbish: str) -> None:
    with page(daemon) as client:
        client.send(rubbish)
        assert until(client, of("error"))["message"]
        until(client, of("status"))


def test_log_actions_are_answered_as_on_their_own_socket(daemon: Whole) -> None:
    with page(daemon) as client:
        client.send(json.dumps({"action": "followLogs", "id": 7}))
        answer = until(client, lambda m: m.get("id") == 7)
        assert answer == {"action": "followLogs", "status": "ok", "id": 7}
        client.send(json.dumps({"action": "explode", "id": 8}))
        assert until(client, lambda m: m.get("id") == 8)["error"]["code"] == "unknown-action"


def follow(client: ClientConnection, position: Position, *, until_kind: type[Event]) -> list[Event]:
    """Return what a page receives of a channel, up to the first event of a kind."""
    found: list[Event] = []

    def last(message: dict[str, Any]) -> bool:
        if message.get("channel") == position.channel and message["type"] != "absent":
            found.extend(position.take(message))
        return any(isinstance(event, until_kind) for event in found)

    until(client, last)
    return found


def test_a_channel_is_followed_from_its_beginning_each_message_once(daemon: Whole) -> None:
    uri = f"tcp://127.0.0.1:{daemon.config['zeromq_uri'][1]}"
    position = Position("c")
    with contextlib.closing(Broker(uri)) as broker, page(daemon) as client:
        broker.send("c", "STARTED")
        for number in range(100):
            broker.task("c", number)
        client.send(position.request())
        seen = follow(client, position, until_kind=Message)
        for number in range(100, 200):
            broker.task("c", number)
        broker.send("c", "FINISHED")
        seen += follow(client, position, until_kind=End)
    assert seen.pop() == End("c", finished=True)
    messages = [event for event in seen if isinstance(event, Message)]
    assert messages == seen
    assert [m.data.get("task_id") for m in messages[1:-1]] == [f"t{n}" for n in range(200)]
    assert (messages[0].data["command"], messages[-1].data["command"]) == ("STARTED", "FINISHED")


def test_a_page_that_comes_back_goes_on_where_it_was(daemon: Whole) -> None:
    uri = f"tcp://127.0.0.1:{daemon.config['zeromq_uri'][1]}"
    position = Position("back")
    with contextlib.closing(Broker(uri)) as broker:
        broker.send("back", "STARTED")
        with page(daemon) as client:
            client.send(position.request())
            follow(client, position, until_kind=Message)
        broker.task("back", 1)
        broker.send("back", "FINISHED")
        with page(daemon) as client:
            position.disconnected()
            client.send(position.request())
            seen = follow(client, position, until_kind=End)
    assert [event.data["command"] for event in seen if isinstance(event, Message)] == [
        "TASK",
        "FINISHED",
    ]
    assert not any(isinstance(event, Reset) for event in seen)


def test_a_page_is_told_when_the_relay_had_lost_its_broker(daemon: Whole) -> None:
    uri = f"tcp://127.0.0.1:{daemon.config['zeromq_uri'][1]}"
    position = Position("cut")
    with page(daemon) as client:
        with contextlib.closing(Broker(uri)) as broker:
            broker.send("cut", "STARTED")
            client.send(position.request())
            follow(client, position, until_kind=Message)
        (gap,) = follow(client, position, until_kind=Gap)
        assert isinstance(gap, Gap)
        assert (gap.seq, gap.until) == (1, None)
        until(client, lambda m: m.get("type") == "status" and m["relay"]["brokers"] == 0)
        with contextlib.closing(Broker(uri)):
            closed = until(client, lambda m: m.get("state") == "gap")
        assert closed["until"] >= closed["since"] == gap.since


def test_a_channel_that_is_left_is_told_of_no_more(daemon: Whole) -> None:
    uri = f"tcp://127.0.0.1:{daemon.config['zeromq_uri'][1]}"
    with contextlib.closing(Broker(uri)) as broker, page(daemon) as client:
        client.send(json.dumps({"type": "subscribe", "channel": "left"}))
        assert until(client, of("absent"))["channel"] == "left"
        client.send(json.dumps({"type": "subscribe", "channel": "kept"}))
        assert until(client, of("absent"))["channel"] == "kept"
        broker.send("left", "STARTED")
        broker.send("kept", "STARTED")
        assert until(client, lambda m: "channel" in m)["channel"] == "kept"
        client.send(json.dumps({"type": "leave", "channel": "kept"}))
        client.send(json.dumps({"type": "subscribe", "channel": ""}))
        assert until(client, of("error"))["code"] == "bad-request"
        broker.send("kept", "FINISHED")
        wait_for(lambda: _channel(daemon, "kept")["ended"], "the channel's end")
        seen = [json.loads(client.recv(timeout=LIMIT_S)) for _ in range(3)]
        assert all("channel" not in message for message in seen)
    # Nobody was its subscriber: a page only looks on.
    assert _channel(daemon, "kept")["subscribers"] == 0


def _channel(daemon: Whole, name: str) -> dict[str, Any]:
    items = daemon.get("/channel")["items"]
    return next(entry for entry in items if entry["name"] == name)


def test_who_watches_notifications_is_told_when_there_are_others(daemon: Whole) -> None:
    with page(daemon) as client, page(daemon) as other:
        client.send(json.dumps({"watch": ["notifications"]}))
        assert until(client, of("notifications")) == {"type": "notifications", "stale": False}
        # Once more after the first look, which nobody can compare with one before.
        until(client, of("notifications"))
        entry = {"level": "info", "time": time.time(), "sender": "a", "message": "done"}
        other.send(json.dumps({"action": "uploadNotifications", "id": 1, **entry}))
        assert until(other, lambda m: m.get("id") == 1)["status"] == "ok"
        until(client, of("notifications"))
        client.send(json.dumps({"watch": []}))
        other.send(json.dumps({"action": "uploadNotifications", "id": 2, **entry}))
        until(other, lambda m: m.get("id") == 2)
        seen = [json.loads(client.recv(timeout=LIMIT_S)) for _ in range(5)]
        assert "notifications" not in {message.get("type") for message in seen}


def test_a_role_that_is_taken_away_is_gone_from_an_open_page() -> None:
    with whole(tokens=True) as daemon:
        uri = f"tcp://127.0.0.1:{daemon.config['zeromq_uri'][1]}"
        file = daemon.folder / "tokens.yml"
        with contextlib.closing(Broker(uri)) as broker, page(daemon) as client:
            client.send(json.dumps({"type": "subscribe", "channel": "c"}))
            until(client, of("absent"))
            file.write_text(file.read_text().replace("role: admin", "role: reader"))
            daemon.daemon.reload()
            hello = until(client, of("hello"))
            while hello["role"] == "admin":
                hello = until(client, of("hello"))
            assert "channels" not in hello["has"]
            broker.send("c", "STARTED")
            seen = [json.loads(client.recv(timeout=LIMIT_S)) for _ in range(5)]
            assert all("channel" not in message for message in seen)
            file.write_text(file.read_text().replace("role: reader", "role: sender"))
            daemon.daemon.reload()
            with pytest.raises(ConnectionClosed) as closed:
                until(client, of("never"))
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
