"""The kind websocket against real servers."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.client import ClientProtocol
from websockets.http11 import Request
from websockets.typing import Subprotocol

from monitor import yielding
from tests.probes.attempts import check
from tests.probes.certificates import SOON, Certificates
from tests.probes.misbehaving import Misbehaving

pytestmark = pytest.mark.integration_test


async def swallow(connection: ServerConnection) -> None:
    async for _ in connection:
        pass


@pytest.mark.parametrize("secure", [False, True])
async def test_a_websocket_that_upgrades_is_up(certificates: Certificates, secure: bool) -> None:
    context = certificates.context("good") if secure else None
    async with serve(swallow, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"{'wss' if secure else 'ws'}://localhost:{port}/"
        keys = {"ca_file": certificates.file} if secure else {}
        outcome = await check(url, ip_version="4", **keys)
    assert (outcome.error, outcome.status) == (None, 101)
    assert (outcome.phases.tls > 0) == secure
    assert outcome.certificate_expires_at == (SOON if secure else None)


async def test_a_websockets_headers_are_sent_once_and_its_subprotocols_are_offered() -> None:
    received = []

    def note(_: ServerConnection, request: Request) -> None:
        received.append(request.headers)

    offered = [Subprotocol("mqtt")]
    async with serve(swallow, "127.0.0.1", 0, subprotocols=offered, process_request=note) as server:
        url = f"ws://me:secret@127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        headers = {
            "Host": "other.example",
            "authorization": "Bearer x",
            "Sec-WebSocket-Protocol": "amqp, mqtt",
        }
        assert (await check(url, headers=headers)).error is None
    (sent,) = received
    assert sent.get_all("Host") == ["other.example"]
    assert sent.get_all("Authorization") == ["Bearer x"]
    assert sent.get_all("Sec-WebSocket-Protocol") == ["amqp, mqtt"]


async def test_a_websocket_job_sends_what_an_http_job_sends() -> None:
    received = []

    def note(_: ServerConnection, request: Request) -> None:
        received.append(request.headers)

    headers = {"X-Name": "grün 日本", "Cookie": "ü=" + "a" * 5000}
    async with serve(swallow, "127.0.0.1", 0, process_request=note) as server:
        place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        for credentials in ("me%3Aone:pä", ":only"):
            outcome = await check(f"ws://{credentials}@{place}", headers=headers, timeout=30)
            assert outcome.error is None
    for sent, credentials in zip(received, ("me:one:pä", ":only"), strict=True):
        assert base64.b64decode(sent["Authorization"].split()[1]).decode() == credentials
        for name, value in headers.items():
            assert sent[name].encode("latin-1").decode() == value


@pytest.mark.parametrize("argument", ["long", "many", "interim", "lines"])
async def test_a_websocket_is_up_whatever_else_is_in_the_answer(
    server: Misbehaving, argument: str
) -> None:
    url = server.url(f"/websocket/{argument}").replace("http:", "ws:")
    outcome = await check(url, timeout=30)
    assert (outcome.error, outcome.status) == (None, 101)


@pytest.mark.parametrize(
    ("argument", "error"),
    [
        ("says", "body-mismatch: the answer at step 1 was b'421"),
        ("", "timeout"),
        ("masks", "bad-answer: incorrect masking"),
    ],
)
async def test_a_dialogue_without_a_whole_answer_has_no_response_time(
    server: Misbehaving, argument: str, error: str
) -> None:
    url = server.url(f"/websocket/{argument}").replace("http:", "ws:")
    outcome = await check(url, timeout=2, dialogue=[{"expect": "^220 "}])
    assert (outcome.error or "").startswith(error)
    assert outcome.response_time is None


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/ok", "bad-status: 200"),
        ("/status/403", "bad-status: 403"),
        ("/garbage", "bad-answer: "),
        ("/empty", "reset: "),
        ("/upgrade", "bad-answer: "),
        ("/odd-upgrade", "bad-answer: invalid Upgrade header: "),
        ("/silent", "timeout: "),
        ("/headers", "bad-answer: "),
    ],
)
async def test_what_does_not_upgrade_is_down(server: Misbehaving, path: str, error: str) -> None:
    url = server.url(path).replace("http:", "ws:")
    outcome = await check(url, timeout=0.5 if path == "/silent" else 10)
    assert outcome.error is not None
    assert outcome.error.startswith(error)


async def test_what_a_server_closes_with_is_shown(server: Misbehaving) -> None:
    url = server.url("/websocket/closes").replace("http:", "ws:")
    outcome = await check(url, timeout=30, dialogue=[{"expect": "x"}])
    problem = "body-mismatch: the answer at step 1 was b''"
    assert outcome.error == f"{problem}, closed with 1008 too busy!"


async def test_a_flood_of_pings_is_parsed_over_many_turns(
    server: Misbehaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces: list[tuple[int, int]] = []
    turn = 0

    class Noted(ClientProtocol):
        def receive_data(self, data: Any) -> None:
            pieces.append((turn, len(data)))
            super().receive_data(data)

    async def count_turns() -> None:
        nonlocal turn
        while True:
            await asyncio.sleep(0)
            turn += 1

    monkeypatch.setattr(yielding, "_PIECE_S", 0.0)
    monkeypatch.setattr("websockets.client.ClientProtocol", Noted)
    url = server.url("/websocket/pings").replace("http:", "ws:")
    counting = asyncio.create_task(count_turns())
    outcome = await check(url, timeout=30, dialogue=[{"expect": "^220"}])
    counting.cancel()
    assert outcome.error is None
    _, *parsed = pieces
    assert sum(size for _, size in parsed) > 10_000
    assert max(size for _, size in parsed) <= 256
    # Each in another turn, but the first of a read that came in the turn of the last one's end.
    assert len({at for at, _ in parsed}) > len(parsed) // 2
