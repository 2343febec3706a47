"""The live feed as a page sees it: all at first, then what changes, and nothing it may not see."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.relay.broker import Broker
from tests.web.whole import LIMIT_S, Whole, whole

pytestmark = pytest.mark.integration_test


@pytest.fixture(scope="module")
def daemon() -> Iterator[Whole]:
    with whole(tokens=True) as running:
        assert running.request("POST", "/job", json={"id": 1, **running.mock()}).status_code == 201
        running.wait_for_state(1, "up")
        yield running


def page(daemon: Whole, role: str = "admin", **options: Any) -> ClientConnection:
    headers = {"authorization": f"Bearer {daemon.tokens[role]}"}
    url = f"ws://127.0.0.1:{daemon.port}/live"
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
        hello, status, jobs = (json.loads(client.recv(timeout=LIMIT_S)) for _ in range(3))
        assert (hello["type"], hello["role"]) == ("hello", "admin")
        assert {"jobs", "history", "logs", "relay", "channels"} <= set(hello["has"])
        assert status["parts"]["probes"]["health"] == "ok"
        assert jobs["reset"] is True
        assert jobs["items"] == [
            daemon.get("/job/1")
            | {"last": jobs["items"][0]["last"]}
            | {"next_run": jobs["items"][0]["next_run"]}
        ]
        line = until(client, lambda m: m.get("type") == "jobs" and not m.get("reset"))["items"][0]
        assert line["id"] == 1
        assert line["at"] > jobs["items"][0]["last"]["checked_at"] - 1
        # Another one is created: all are told anew.
        assert daemon.request("POST", "/job", json={"id": 2, **daemon.mock()}).status_code == 201
        anew = until(client, lambda m: m.get("type") == "jobs" and m.get("reset"))
        assert [job["id"] for job in anew["items"]] == [1, 2]
        # It goes down: that is a change of its own.
        ill = daemon.mock("status=500&delay=0")
        assert daemon.request("PUT", "/job/2", json=ill).status_code == 200
        change = until(client, of("changes"))["items"][-1]
        assert (change["kind"], change["job_id"], change["to"]) == ("job", 2, "down")
        assert change["detail"].startswith("bad-status")
        daemon.request("DELETE", "/job/2")


def test_who_may_not_see_channels_gets_none(daemon: Whole) -> None:
    with page(daemon, "reader") as client:
        hello = json.loads(client.recv(timeout=LIMIT_S))
        assert "channels" not in hello["has"]
        client.send(json.dumps({"watch": ["channels"], "follow": "c"}))
        seen = [json.loads(client.recv(timeout=LIMIT_S)) for _ in range(6)]
        assert not {"channels", "channel"} & {message.get("type") for message in seen}


def test_a_sender_and_a_page_of_another_site_get_nothing(daemon: Whole) -> None:
    with page(daemon, "sender") as client, pytest.raises(ConnectionClosed) as closed:
        client.recv(timeout=LIMIT_S)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008
    with pytest.raises(InvalidStatus) as refused, page(daemon, origin="http://evil.example"):
        pass
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize(
    "rubbish", ["", "nonsense", "[]", '{"watch": 3}', '{"follow": []}', "null"]
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


def test_a_channel_is_followed_from_its_beginning_each_message_once(daemon: Whole) -> None:
    uri = f"tcp://127.0.0.1:{daemon.config['zeromq_uri'][1]}"
    with contextlib.closing(Broker(uri)) as broker, page(daemon) as client:
        broker.send("c", "STARTED")
        for number in range(100):
            broker.task("c", number)
        client.send(json.dumps({"follow": "c"}))
        until(client, lambda m: m.get("type") == "channel" and m.get("reset"))
        for number in range(100, 200):
            broker.task("c", number)
        broker.send("c", "FINISHED")
        seen = []

        def ended(message: dict[str, Any]) -> bool:
            if "command" in message:
                seen.append(message)
            elif message.get("type") == "channel" and message.get("reset"):
                seen.clear()
            return message.get("type") == "channel" and bool(message.get("ended"))

        until(client, ended)
        assert [m.get("task_id") for m in seen[1:-1]] == [f"t{number}" for number in range(200)]
        assert (seen[0]["command"], seen[-1]["command"]) == ("STARTED", "FINISHED")
