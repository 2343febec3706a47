"""The log actions on both transports: WebSocket and ZeroMQ."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
import zmq
import zmq.auth
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from monitor.tokens import Role, TokenFile, create_token
from monitor.web.settings import ApiSettings
from tests.examples import examples
from tests.logs.test_actions import messages
from tests.logs.test_entries import json_values
from tests.logs.transports import ask, entry, peer, receive, service, texts
from tests.waiting import LIMIT_S, wait_for


def test_all_transports_share_one_service(tmp_path: Path) -> None:
    with (
        service(tmp_path) as running_service,
        connect(running_service.url) as socket,
        peer(running_service.endpoint) as dealer,
        peer(running_service.endpoint, zmq.REQ) as req,
    ):
        clients: tuple[ClientConnection | zmq.Socket[bytes], ...] = (socket, dealer, req)
        for number, client in enumerate(clients):
            stored = ask(client, "uploadLogs", id=number, **entry(str(number)))
            assert stored == {
                "action": "uploadLogs",
                "status": "ok",
                "id": number,
                "accepted": 1,
                "rejected": [],
            }
        for client in (socket, dealer, req):
            assert texts(ask(client, "getLogs")) == ["2", "1", "0"]
        over_http = requests.get(f"{running_service.server.url}/log?limit=2", timeout=LIMIT_S)
        assert texts(over_http.json()) == ["2", "1"]
        cursor = over_http.json()["cursor"]
        more = requests.get(
            f"{running_service.server.url}/log", params={"cursor": cursor}, timeout=LIMIT_S
        )
        assert texts(more.json()) == ["0"]
        wrong = requests.get(f"{running_service.server.url}/log?cursor=x", timeout=LIMIT_S)
        assert wrong.status_code == 422
        assert wrong.json()["detail"].startswith("cursor")


def test_followers_on_both_transports(tmp_path: Path) -> None:
    with (
        service(tmp_path) as running_service,
        connect(running_service.url) as socket,
        connect(running_service.url) as sender,
        peer(running_service.endpoint) as dealer,
        peer(running_service.endpoint, zmq.REQ) as req,
    ):
        for client in (socket, dealer):
            assert ask(client, "followLogs", id=1)["status"] == "ok"
        refused = ask(req, "followLogs", id=1)
        assert "DEALER" in refused["error"]["message"]
        given = [entry(str(number)) for number in range(3)]
        assert ask(sender, "uploadLogs", logs=given)["accepted"] == 3
        for client in (socket, dealer):
            assert receive(client) == {"action": "log", "logs": given, "dropped": 0}
            assert ask(client, "unfollowLogs")["status"] == "ok"
        wait_for(lambda: len(running_service.logs.service.tail) == 0, "nobody follows")


def test_followers_that_go_away_are_forgotten(tmp_path: Path) -> None:
    with service(tmp_path) as running_service, connect(running_service.url) as sender:
        with connect(running_service.url) as socket, peer(running_service.endpoint) as dealer:
            ask(socket, "followLogs")
            ask(dealer, "followLogs")
            assert len(running_service.logs.service.tail) == 2

        def gone() -> bool:
            ask(sender, "uploadLogs", **entry("x"))  # libzmq reports a lost peer at a send
            return len(running_service.logs.service.tail) == 0

        wait_for(gone, "both are forgotten")


def test_a_slow_websocket_follower_is_told_what_it_missed_and_bounded(tmp_path: Path) -> None:
    text = "x" * 100_000
    count = 400
    with (
        service(tmp_path, api={"client_stall": 60}, timewindow=600) as running_service,
        connect(running_service.url) as sender,
        connect(running_service.url, max_queue=1, max_size=2**24) as slow,
    ):
        ask(slow, "followLogs")
        for _ in range(count // 20):
            ask(sender, "uploadLogs", logs=[entry(text) for _ in range(20)])
        # A handler that waits for nothing holds no more than this.
        held = [each.buffered_bytes for each in running_service.server.web._sockets._open]  # type: ignore[union-attr]
        assert max(held) < 4 * 1024 * 1024
        got = missed = 0
        while got + missed < count:
            message = receive(slow)
            got += len(message["logs"])
            missed += message["dropped"]
        assert got + missed == count
        assert missed > 0


def test_tokens_over_zeromq_and_websocket(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yml"
    made = {role.value: create_token(file, f"{role}-1", role) for role in Role}
    tokens = TokenFile(file)
    with service(tmp_path, tokens=tokens) as running_service:
        with peer(running_service.endpoint) as dealer:
            for token in (None, "wrong", ""):
                extra = {} if token is None else {"token": token}
                answer = ask(dealer, "uploadLogs", id=1, **entry("x"), **extra)
                assert (answer["error"]["code"], answer["id"]) == ("unauthorized", 1)
                assert "wrong" not in json.dumps(answer)
            mine = entry("mine")
            del mine["sender"]
            stored = ask(dealer, "uploadLogs", token=made["sender"], **mine)
            assert stored["accepted"] == 1
            forged = ask(dealer, "uploadLogs", token=made["sender"], **entry("forged"))
            assert forged["error"]["code"] == "forbidden"
            assert ask(dealer, "getLogs", token=made["sender"])["error"]["code"] == "forbidden"
            uploaded = ask(dealer, "uploadLogs", token=made["reader"], **entry("x"))
            assert uploaded["error"]["code"] == "forbidden"
            found = ask(dealer, "getLogs", token=made["reader"])["logs"]
            assert [(each["sender"], each["message"]) for each in found] == [("sender-1", "mine")]
        with pytest.raises(InvalidStatus), connect(running_service.url):
            pass
        bearer = {"authorization": f"Bearer {made['reader']}"}
        with connect(running_service.url, additional_headers=bearer) as reader:
            assert texts(ask(reader, "getLogs")) == ["mine"]
            # A token that is taken away ends what it opened.
            file.write_text("tokens: []")
            create_token(file, "other", Role.ADMIN)
            running_service.server.reload(ApiSettings(tokens_file=str(file)))
            with pytest.raises(ConnectionClosed):
                reader.recv(timeout=LIMIT_S)
            assert reader.close_code == 1008


def test_a_token_that_is_taken_away_ends_a_live_tail_over_zeromq(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yml"
    made = {role.value: create_token(file, f"{role}-1", role) for role in Role}
    tokens = TokenFile(file)
    with (
        service(tmp_path, tokens=tokens) as running_service,
        peer(running_service.endpoint) as stays,
        peer(running_service.endpoint) as goes,
        peer(running_service.endpoint) as sender,
    ):
        for client, role in ((stays, "admin"), (goes, "reader")):
            assert ask(client, "followLogs", token=made[role])["status"] == "ok"
            # Another message's token, even a wrong one, is not the one that it follows by.
            assert ask(client, "followLogs", token="wrong")["error"]["code"] == "unauthorized"
            assert ask(client, "getLogs", token=made["reader"])["status"] == "ok"
        lines = yaml.safe_load(file.read_text())["tokens"]
        kept = [each for each in lines if each["role"] != "reader"]
        file.write_text(yaml.safe_dump({"tokens": kept}))
        running_service.server.reload(ApiSettings(tokens_file=str(file)))
        assert ask(sender, "uploadLogs", token=made["admin"], **entry("secret"))["accepted"] == 1
        assert texts(receive(stays)) == ["secret"]
        ended = receive(goes)
        assert (ended["action"], ended["error"]["code"]) == ("followLogs", "unauthorized")
        assert ask(goes, "getLogs", token=made["reader"])["error"]["code"] == "unauthorized"
        assert len(running_service.logs.service.tail) == 1


def test_a_reader_that_becomes_a_sender_reads_no_more(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yml"
    bearer = {"authorization": f"Bearer {create_token(file, 'r', Role.READER)}"}
    with service(tmp_path, tokens=TokenFile(file)) as running_service:
        with connect(running_service.url, additional_headers=bearer) as follower:
            assert ask(follower, "followLogs")["status"] == "ok"
            file.write_text(file.read_text().replace("role: reader", "role: sender"))
            running_service.server.reload(ApiSettings(tokens_file=str(file)))
            with pytest.raises(ConnectionClosed):
                follower.recv(timeout=LIMIT_S)
            assert follower.close_code == 1008
        with connect(running_service.url, additional_headers=bearer) as sender:
            assert ask(sender, "getLogs")["error"]["code"] == "forbidden"


def test_what_cannot_be_done_is_said_on_a_connection_that_lives_on(tmp_path: Path) -> None:
    with service(tmp_path) as running_service, connect(running_service.url) as client:
        for data in ("", "{", "[]", "null", "\0", b"\xff\xfe", "[" * 100_000):
            client.send(data)
            assert receive(client)["error"]["code"] == "bad-request"
        client.send(["{", '"action": "getL', 'ogs"}'])
        assert receive(client)["status"] == "ok"
        many = ask(client, "uploadLogs", logs=[{}] * 10_001)
        assert many["error"]["code"] == "too-large"
        large = ask(client, "uploadLogs", **entry("x" * 262_145))
        assert large["error"]["code"] == "too-large"
        assert ask(client, "uploadLogs", **entry("x" * 262_144))["accepted"] == 1
        client.send("x" * (8 * 1024 * 1024 + 1))
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=LIMIT_S)
        assert client.close_code == 1009
        assert client.close_reason


@settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.binary(max_size=60) | st.text(max_size=60) | messages | json_values, max_size=9))
def test_fuzzed_messages_are_each_answered(
    fuzzed: ClientConnection | zmq.Socket[bytes], sent: list[Any]
) -> None:
    for message in sent:
        data = message if isinstance(message, bytes | str) else json.dumps(message)
        if isinstance(data, str):
            data = data.encode("utf-8", "surrogatepass")
        fuzzed.send(data)  # a binary message, which may hold anything
        while True:
            answer = receive(fuzzed)
            if answer["action"] != "log":
                break
        assert answer["status"] in ("ok", "error")
        if answer["status"] == "error":
            assert answer["error"]["message"]


@pytest.fixture(scope="module", params=["websocket", "zeromq"])
def fuzzed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ClientConnection | zmq.Socket[bytes]]:
    with (
        service(tmp_path_factory.mktemp("fuzzed"), max_entries_per_second=10**6) as running_service,
        connect(running_service.url) as socket,
        peer(running_service.endpoint) as dealer,
    ):
        client = socket if request.param == "websocket" else dealer
        yield client
        assert ask(client, "unfollowLogs")["status"] == "ok"
        assert ask(client, "uploadLogs", **entry("alive"))["accepted"] == 1


def test_a_stop_commits_what_was_taken_and_answers_it(tmp_path: Path) -> None:
    answers: list[Any] = []
    with service(tmp_path) as running_service:
        client = connect(running_service.url).__enter__()

        def read() -> None:
            with contextlib.suppress(ConnectionClosed):
                while True:
                    answers.append(receive(client))

        reader = threading.Thread(target=read)
        reader.start()
        for number in range(300):
            client.send(json.dumps({"action": "uploadLogs", "id": number, **entry(str(number))}))
    reader.join(LIMIT_S)
    client.__exit__(None, None, None)
    assert client.close_code == 1001
    accepted = [answer["id"] for answer in answers if answer["status"] == "ok"]
    with service(tmp_path) as again, connect(again.url) as check:
        stored = texts(ask(check, "getLogs"))
    # Nothing that was answered is missing, and nothing was stored without an answer.
    assert sorted(map(int, stored)) == sorted(accepted)
