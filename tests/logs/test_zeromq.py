"""The log actions over ZeroMQ: peers, their tokens and names, and strangers."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
import zmq.auth

from monitor.errors import ListenError, SettingError
from monitor.logs import peers, zeromq
from monitor.logs.part import Logs
from monitor.logs.settings import LogsSettings
from monitor.store import DatabaseSettings
from monitor.tokens import Role, TokenFile, create_token
from monitor.transport.curve import CurveSettings
from tests.logs.transports import ask, entry, peer, receive, service, texts
from tests.store.opened import opened
from tests.waiting import LIMIT_S, wait_for


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
            # Those that are cut off must not take a place again before the next one has spoken.
            return stack.enter_context(peer(running_service.endpoint, comes_back=False))

        first = another()
        assert ask(first, "uploadLogs", token=token, **entry("x"))["accepted"] == 1
        for _ in range(6):
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


def test_a_zeromq_peer_may_send_ahead_and_is_answered_in_order(tmp_path: Path) -> None:
    with service(tmp_path) as running_service, peer(running_service.endpoint) as dealer:
        for number in range(60):
            message = {"action": "uploadLogs", "id": number, **entry(str(number))}
            dealer.send(json.dumps(message).encode())
        assert [receive(dealer)["id"] for _ in range(60)] == list(range(60))


def test_curve_admits_known_peers_only_and_a_reload_changes_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert (zeromq._MOST_SILENT, zeromq._MOST_UNFINISHED_BYTES) == (500, 64 * 1024 * 1024)
    monkeypatch.setattr(zeromq, "_MOST_SILENT", 5)
    monkeypatch.setattr(zeromq, "_MOST_UNFINISHED_BYTES", 100_000)
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
            # A message of very many frames, and one whose end never comes.
            with known(found.endpoint, keys / "first.key_secret") as endless:
                endless.send_multipart([b"x"] * 5000, zmq.NOBLOCK)
                wait_for(lambda: "a message of too many frames" in caplog.text, "the log")
            with carrying(port, 150_000) as wire, known(wire, keys / "first.key_secret") as long:
                long.send(b"x" * 200_000)
                wait_for(lambda: "bytes of a message without an end" in caplog.text, "the log")
            assert texts(ask(first, "getLogs")) == ["one"]
        shutil.copy(tmp_path / "others" / "second.key", keys)

        async def reload() -> None:
            (await found.logs.prepare(found.logs._settings))()

        found.server.call(reload())
        with known(found.endpoint, tmp_path / "others" / "second.key_secret") as second:
            assert texts(ask(second, "getLogs")) == ["one"]


@contextlib.contextmanager
def carrying(port: int, most_bytes: int) -> Iterator[str]:
    """Yield the endpoint of a way to ``port`` that takes so many bytes of a peer, and no more."""

    def carry(source: socket.socket, target: socket.socket, left: int) -> None:
        with contextlib.suppress(OSError):
            while left and (data := source.recv(min(left, 65536))):
                left -= len(data)
                target.sendall(data)

    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(("127.0.0.1", port), LIMIT_S) as there,
    ):

        def accept() -> None:
            here, _ = listener.accept()
            with here:
                back = threading.Thread(target=carry, args=(there, here, 1 << 30))
                back.start()
                carry(here, there, most_bytes)
                # Until the other side has closed it.
                back.join()

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(LIMIT_S)


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
