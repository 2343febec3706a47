from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
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

from monitor.errors import ListenError, SettingError
from monitor.logs import peers, zeromq
from monitor.logs.part import Logs
from monitor.logs.settings import LogsSettings
from monitor.store import DatabaseSettings, open_store
from monitor.tokens import Role, TokenFile, create_token
from monitor.transport.curve import CurveSettings
from monitor.web.settings import ApiSettings
from tests.examples import examples
from tests.logs.test_actions import messages
from tests.logs.test_entries import json_values
from tests.store.opened import opened
from tests.waiting import LIMIT_S, wait_for
from tests.web.serving import Serving, serving


class Service:
    """The log service with both of its transports."""

    def __init__(self, server: Serving, logs: Logs) -> None:
        self.server = server
        self.logs = logs
        self.url = f"{server.websocket_url}/ws"
        self.endpoint = logs.zeromq.endpoints[0] if logs.zeromq is not None else ""


@contextlib.contextmanager
def service(
    directory: Path,
    *,
    tokens: TokenFile | None = None,
    api: Any = None,
    clock: Callable[[], float] = time.monotonic,
    **options: Any,
) -> Iterator[Service]:
    tokens = tokens or TokenFile(None)
    logs = Logs(
        LogsSettings(zeromq_uri=("127.0.0.1", 0), **options),
        open_store(DatabaseSettings(file=str(directory / "monitor.db"))),
        tokens=tokens,
        clock=clock,
    )
    with serving(parts=[logs], tokens=tokens, **(api or {})) as server:
        yield Service(server, logs)
    asyncio.run(logs._store.close())


@contextlib.contextmanager
def peer(endpoint: str, kind: int = zmq.DEALER) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(kind) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, LIMIT_S * 1000)
        socket.connect(endpoint)
        yield socket


def ask(client: ClientConnection | zmq.Socket[bytes], action: str, **message: Any) -> Any:
    text = json.dumps({"action": action, **message})
    client.send(text.encode()) if isinstance(client, zmq.Socket) else client.send(text)
    return receive(client)


def receive(client: ClientConnection | zmq.Socket[bytes]) -> Any:
    if isinstance(client, zmq.Socket):
        return json.loads(client.recv())
    return json.loads(client.recv(timeout=LIMIT_S))


def entry(message: str, **fields: Any) -> dict[str, Any]:
    return {"level": "info", "time": time.time(), "sender": "a", "message": message} | fields


def texts(answer: Any) -> list[str]:
    return [each["message"] for each in answer["logs"]]


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


def test_a_refused_zeromq_token_is_said_in_the_log_and_not_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "tokens.yml"
    token = create_token(file, "ops", Role.ADMIN)
    with (
        service(tmp_path, tokens=TokenFile(file)) as running_service,
        peer(running_service.endpoint) as dealer,
    ):
        assert ask(dealer, "getLogs", token=token)["status"] == "ok"
        assert "refused" not in caplog.text
        assert ask(dealer, "getLogs")["error"]["code"] == "unauthorized"
        for _ in range(50):
            answer = ask(dealer, "getLogs", token="tops3cret")
            assert answer["error"]["code"] == "unauthorized"
    said = [each for each in caplog.records if each.name == "monitor.logs"]
    warned = [each.getMessage() for each in said if each.levelname == "WARNING"]
    assert warned[:2] == [
        "refused a ZeroMQ message from 127.0.0.1: it has no token",
        "refused a ZeroMQ message from 127.0.0.1: its token is not valid",
    ]
    # So many that they could fill a disk are counted.
    assert len(warned) == 6
    assert warned[5].startswith("token: too many of these")
    assert "tops3cret" not in caplog.text


async def test_zeromq_beyond_loopback_needs_tokens_and_a_free_port(tmp_path: Path) -> None:
    async def start(uri: tuple[str, int]) -> None:
        async with opened(DatabaseSettings(file=str(tmp_path / "monitor.db"))) as store:
            logs = Logs(LogsSettings(zeromq_uri=uri), store, tokens=TokenFile(None))
            try:
                await logs.start()
            finally:
                await logs.close()

    with pytest.raises(SettingError, match=r"zeromq_uri: .*open to other hosts") as caught:
        await start(("0.0.0.0", 0))
    assert caught.value.exit_status == 78
    with zmq.Context() as context, context.socket(zmq.ROUTER) as taken:
        port = taken.bind_to_random_port("tcp://127.0.0.1")
        with pytest.raises(ListenError, match="zeromq_uri"):
            await start(("127.0.0.1", port))


async def test_a_reload_refuses_a_zeromq_address_that_the_next_start_would(tmp_path: Path) -> None:
    async with opened(DatabaseSettings(file=str(tmp_path / "monitor.db"))) as store:
        logs = Logs(LogsSettings(), store, tokens=TokenFile(None))
        await logs.start()
        try:
            with pytest.raises(SettingError, match=r"zeromq_uri: .*open to other hosts"):
                await logs.prepare(LogsSettings(zeromq_uri=("0.0.0.0", 7895)))
            (await logs.prepare(LogsSettings(zeromq_uri=("127.0.0.1", 7895))))()
        finally:
            await logs.close()


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([b""], "empty"),
        ([b"{"], "ends too early"),
        ([b"\xff"], "not JSON"),
        ([b"", b""], "empty"),
        ([b"", b"\xff"], "not JSON"),
        ([b"", b"", b"{}"], "one frame"),
        ([b"x", b"{}"], "one frame"),
        ([b"{}"] * 50, "one frame"),
    ],
)
def test_strange_zeromq_messages_are_answered_and_harm_nobody(
    tmp_path: Path, frames: list[bytes], words: str
) -> None:
    with service(tmp_path) as running_service:
        with peer(running_service.endpoint) as strange:
            for _ in range(5):
                strange.send_multipart(frames)
                *envelope, text = strange.recv_multipart()
                assert envelope == ([b""] if frames[0] == b"" and len(frames) > 1 else [])
                error = json.loads(text)["error"]
                assert error["code"] == "bad-request"
                assert words in error["message"]
        with peer(running_service.endpoint) as dealer:
            assert ask(dealer, "uploadLogs", **entry("x"))["accepted"] == 1


def test_a_req_peer_gets_its_errors_and_goes_on(tmp_path: Path) -> None:
    with (
        service(tmp_path, max_entry_bytes=1000, max_message_bytes=5000) as running_service,
        peer(running_service.endpoint, zmq.REQ) as req,
    ):
        req.send_multipart([b'{"action": "getLogs"}', b"more"])
        assert receive(req)["error"]["code"] == "bad-request"
        large = ask(req, "uploadLogs", **entry("x" * 6000))
        assert large["error"]["code"] == "too-large"
        assert "5000 bytes" in large["error"]["message"]
        assert ask(req, "nonsense")["error"]["code"] == "unknown-action"
        assert ask(req, "uploadLogs", **entry("x"))["accepted"] == 1


def test_zeromq_peers_beyond_the_limit_take_the_place_of_who_was_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zeromq, "_MAX_PEERS", 2)
    with service(tmp_path) as running_service, contextlib.ExitStack() as stack:
        first, second, third, fourth = (
            stack.enter_context(peer(running_service.endpoint)) for _ in range(4)
        )
        assert ask(first, "followLogs")["status"] == "ok"
        for _ in range(2):
            for client in (second, third):
                assert ask(client, "uploadLogs", **entry("x"))["accepted"] == 1
        assert receive(first)["logs"]
        assert ask(third, "followLogs")["status"] == "ok"
        refused = ask(fourth, "uploadLogs", **entry("y"))
        assert refused["error"]["code"] == "unavailable"
        assert refused["error"]["retry_after"] > 0
        assert len(running_service.logs.zeromq or ()) == 2


def test_strangers_of_zeromq_leave_room_for_who_has_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zeromq, "MOST_CONNECTIONS", 3)
    monkeypatch.setattr(zeromq, "_MAX_PEERS", 2)
    file = tmp_path / "tokens.yml"
    token = create_token(file, "ops", Role.ADMIN)
    with (
        service(tmp_path, tokens=TokenFile(file)) as running_service,
        contextlib.ExitStack() as stack,
    ):

        def another() -> zmq.Socket[bytes]:
            return stack.enter_context(peer(running_service.endpoint))

        first = another()
        assert ask(first, "uploadLogs", token=token, **entry("x"))["accepted"] == 1
        for _ in range(6):
            # One that is cut off connects again.
            assert ask(another(), "getLogs")["error"]["code"] == "unauthorized"
        assert ask(another(), "uploadLogs", token=token, **entry("x"))["accepted"] == 1
        assert ask(first, "uploadLogs", token=token, **entry("x"))["accepted"] == 1
        # A long message is not even decoded without a token.
        long = {"id": 7, **entry("x" * 100_000)}
        refused = ask(another(), "uploadLogs", **long)
        assert (refused["error"]["code"], refused.get("id")) == ("unauthorized", None)
        assert ask(first, "uploadLogs", token=token, **long)["id"] == 7


def test_a_zeromq_follower_that_is_gone_is_found_though_nothing_matches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "_PROBE_S", 0.2)
    with service(tmp_path) as running_service:
        with peer(running_service.endpoint) as dealer:
            assert ask(dealer, "followLogs", sender="nobody")["status"] == "ok"
            assert receive(dealer) == {"action": "log", "logs": [], "dropped": 0}
        wait_for(lambda: len(running_service.logs.service.tail) == 0, "it is forgotten")


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


def test_queries_over_http_are_limited_as_those_over_the_socket(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yml"
    headers = {
        name: {"authorization": f"Bearer {create_token(file, name, Role.READER)}"}
        for name in ("one", "two")
    }

    def get(server: Service, path: str, name: str | None = None) -> requests.Response:
        url = f"{server.server.url}{path}"
        return requests.get(url, headers=headers[name] if name else {}, timeout=LIMIT_S)

    def limited(answer: requests.Response) -> None:
        assert answer.status_code == 429
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "rate-limited"
        assert int(answer.headers["retry-after"]) >= 1

    limits: dict[str, Any] = {"clock": lambda: 0.0, "max_entries_per_second": 1}
    with service(tmp_path, tokens=TokenFile(file), **limits) as some:
        # What a token asks by one way counts for the other.
        with connect(some.url, additional_headers=headers["one"]) as socket:
            assert ask(socket, "getLogs")["status"] == "ok"
        assert get(some, "/notification", "one").ok
        limited(get(some, "/log", "one"))
        limited(get(some, "/log?limit=nonsense", "one"))
        assert get(some, "/log", "two").ok
        assert some.logs.service.rejected["rate-limited"] == 2
    with service(tmp_path, **limits) as some:
        assert [get(some, "/log").status_code for _ in range(2)] == [200, 200]
        limited(get(some, "/log"))


def test_a_level_of_thousands_of_digits_is_none(tmp_path: Path) -> None:
    with service(tmp_path) as some:
        for key in ("level", "min_level"):
            answer = requests.get(
                f"{some.server.url}/log", params={key: "1" * 5000}, timeout=LIMIT_S
            )
            assert answer.status_code == 422
            assert answer.json()["detail"].startswith(key)


def test_a_zeromq_peer_may_send_ahead_and_is_answered_in_order(tmp_path: Path) -> None:
    with service(tmp_path) as running_service, peer(running_service.endpoint) as dealer:
        for number in range(60):
            message = {"action": "uploadLogs", "id": number, **entry(str(number))}
            dealer.send(json.dumps(message).encode())
        assert [receive(dealer)["id"] for _ in range(60)] == list(range(60))


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


def test_curve_admits_known_peers_only_and_a_reload_changes_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(zeromq, "_MOST_SILENT", 5)
    keys = tmp_path / "keys"
    keys.mkdir()
    public, secret = zmq.auth.create_certificates(tmp_path, "server")
    zmq.auth.create_certificates(keys, "first")
    (tmp_path / "others").mkdir()
    zmq.auth.create_certificates(tmp_path / "others", "second")
    curve = CurveSettings(secret_key_file=secret, public_keys_dir=str(keys))

    @contextlib.contextmanager
    def known(endpoint: str, file: Path) -> Iterator[zmq.Socket[bytes]]:
        own = zmq.auth.load_certificate(file)
        with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
            dealer.setsockopt(zmq.LINGER, 0)
            dealer.setsockopt(zmq.RCVTIMEO, LIMIT_S * 1000)
            dealer.curve_serverkey = zmq.auth.load_certificate(public)[0]
            dealer.curve_publickey, dealer.curve_secretkey = own[0], own[1] or b""
            dealer.connect(endpoint)
            yield dealer

    with service(tmp_path, curve=curve) as found:
        with known(found.endpoint, keys / "first.key_secret") as first:
            assert ask(first, "uploadLogs", **entry("one"))["status"] == "ok"
            with (
                peer(found.endpoint) as plain,
                known(found.endpoint, tmp_path / "others" / "second.key_secret") as second,
            ):
                for stranger in (plain, second):
                    # One that was refused already has nobody to send to.
                    with contextlib.suppress(zmq.Again):
                        stranger.send(b'{"action": "getLogs"}', zmq.NOBLOCK)
                # Answers of later messages show that those before were not read.
                assert texts(ask(first, "getLogs")) == ["one"]
                for stranger in (plain, second):
                    with pytest.raises(zmq.Again):
                        stranger.recv(zmq.NOBLOCK)
            port = int(found.endpoint.rpartition(":")[2])
            silent = [socket.create_connection(("127.0.0.1", port), LIMIT_S) for _ in range(10)]
            wait_for(lambda: "too many that say nothing" in caplog.text, "the log")
            assert texts(ask(first, "getLogs")) == ["one"]
            for raw in silent:
                raw.close()
        shutil.copy(tmp_path / "others" / "second.key", keys)

        async def reload() -> None:
            (await found.logs.prepare(found.logs._settings))()

        found.server.call(reload())
        with known(found.endpoint, tmp_path / "others" / "second.key_secret") as second:
            assert texts(ask(second, "getLogs")) == ["one"]


@contextlib.contextmanager
def named(endpoint: str, identity: bytes) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.RCVTIMEO, LIMIT_S * 1000)
        dealer.setsockopt(zmq.IDENTITY, identity)
        dealer.connect(endpoint)
        yield dealer


def test_a_live_tail_belongs_to_who_showed_the_token_and_not_to_a_name(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yml"
    admin, reader = (create_token(file, role.value, role) for role in (Role.ADMIN, Role.READER))
    with service(tmp_path, tokens=TokenFile(file)) as found:
        tail = found.logs.service.tail
        with named(found.endpoint, b"wall") as thief, peer(found.endpoint) as uploader:
            with named(found.endpoint, b"wall") as follower:
                assert ask(follower, "followLogs", token=reader)["status"] == "ok"
                assert ask(uploader, "uploadLogs", token=admin, **entry("one"))["accepted"] == 1
                assert texts(receive(follower)) == ["one"]
            # Its connection is gone, and so is its tail.
            wait_for(lambda: len(tail) == 0, "the end of the tail")
            assert ask(uploader, "uploadLogs", token=admin, **entry("two"))["accepted"] == 1
            assert ask(thief, "getLogs")["error"]["code"] == "unauthorized"
            with pytest.raises(zmq.Again):
                thief.recv(zmq.NOBLOCK)


def test_a_name_that_another_peer_took_first_silences_nobody(tmp_path: Path) -> None:
    with (
        service(tmp_path) as found,
        named(found.endpoint, b"addon-1") as first,
        named(found.endpoint, b"addon-1") as device,
        named(found.endpoint, b"addon-1") as last,
    ):
        for _ in range(3):
            for text, client in (("a", first), ("b", device), ("c", last)):
                assert ask(client, "uploadLogs", **entry(text))["accepted"] == 1
        assert len(texts(ask(device, "getLogs"))) == 9


def test_uploads_over_http_are_as_those_over_the_socket(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yml"
    made = {role.value: create_token(file, f"{role}-1", role) for role in Role}
    with service(tmp_path, tokens=TokenFile(file), max_batch=3) as found:

        def post(path: str, body: Any, role: str = "sender", **headers: str) -> Any:
            headers = {"authorization": f"Bearer {made[role]}"} | headers
            url = f"{found.server.url}{path}"
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            return requests.post(url, data=content, headers=headers, timeout=LIMIT_S)

        one = {key: value for key, value in entry("one").items() if key != "sender"}
        answer = post("/log", {**one, "id": 7})
        expected = {"action": "uploadLogs", "status": "ok", "accepted": 1, "rejected": []}
        assert (answer.status_code, answer.json()) == (200, {**expected, "id": 7})
        two = {"action": "uploadLogs", "logs": [one, {**one, "level": "loud"}], "upload_id": "a"}
        answer = post("/log", two)
        assert answer.json()["accepted"] == 1
        assert answer.json()["rejected"][0]["reason"] == "unknown-level"
        assert post("/log", two).json() == answer.json()
        assert post("/notification", {**one, "level": "FATAL"}).json()["accepted"] == 1
        assert post("/log", {**one, "sender": "x"}, role="admin").json()["accepted"] == 1
        for path, body, role, status, code in (
            ("/log", b"{", "sender", 422, "bad-request"),
            ("/log", {"action": "getLogs"}, "sender", 422, "bad-request"),
            ("/log", {"logs": [one] * 4}, "sender", 413, "too-large"),
            ("/log", {**one, "level": "loud"}, "sender", 422, "bad-request"),
            ("/log", {**one, "sender": "other"}, "sender", 403, "forbidden"),
            ("/log", one, "reader", 403, "forbidden"),
        ):
            answer = post(path, body, role)
            assert (answer.status_code, answer.json()["code"]) == (status, code), body
            assert answer.headers["content-type"] == "application/problem+json"
        # A page of another site cannot have the token.
        assert post("/log", one, origin="https://other.example").status_code == 200
        assert (
            requests.post(f"{found.server.url}/log", data=b"{}", timeout=LIMIT_S).status_code == 401
        )
        admin = {"authorization": f"Bearer {made['admin']}"}
        url = f"{found.server.url}/log"
        query = {"from": "2001-01-01T00:00:00Z", "not": ["x", "y"]}
        page = requests.get(url, params=query, headers=admin, timeout=LIMIT_S)
        assert texts(page.json()) == ["one"] * 4
        for regexp, matching in (("^on.$", ["one"] * 4), ("two", [])):
            page = requests.get(url, params={"regexp": regexp}, headers=admin, timeout=LIMIT_S)
            assert texts(page.json()) == matching
        wrong = requests.get(url, params={"regexp": "("}, headers=admin, timeout=LIMIT_S)
        assert wrong.status_code == 422
        assert "not a regular expression: missing )" in wrong.json()["detail"]
        wrong = requests.get(url, params={"from": "soon"}, headers=admin, timeout=LIMIT_S)
        assert wrong.status_code == 422
