from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from fastapi import APIRouter, Request

from monitor.errors import ListenError, SettingError
from monitor.part import Health as PartHealth
from monitor.part import Part, State
from monitor.tokens import Role, TokenFile, create_token
from monitor.web.http.app import Requester
from monitor.web.part import Web
from monitor.web.settings import ApiSettings
from tests.waiting import LIMIT_S, wait_for
from tests.web.serving import Serving, serving

routes = APIRouter()


@routes.get("/whoami")
async def whoami(who: Requester) -> str:
    return who.name


@routes.post("/length")
async def length(request: Request) -> int:
    return len(await request.body())


@routes.get("/number")
async def number(value: int) -> int:
    return value


@routes.get("/broken")
async def broken() -> None:
    raise RuntimeError("the secret of the day")


@routes.get("/broken/{name}")
async def broken_by_name(name: str) -> None:
    raise RuntimeError(f"no {len(name)} of these")


@routes.get("/large")
async def large() -> str:
    return "x" * 20_000_000


def problem(response: requests.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["detail"]
    return body


def exchange(port: int, data: bytes, *, more: bytes = b"") -> bytes:
    """Send raw bytes and return everything that comes until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as raw:
        # The server may have closed already, having read enough.
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            raw.sendall(data)
            raw.sendall(more)
        got = b""
        while True:
            try:
                piece = raw.recv(65536)
            except ConnectionResetError:
                return got
            if not piece:
                return got
            got += piece


class Ailing(Part):
    """A part with the state that it is given."""

    name = "ailing"
    health = PartHealth.OK

    async def start(self) -> None:
        pass

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def drain(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def state(self) -> State:
        return State(self.health, "")


def test_one_degraded_part_makes_the_health_degraded() -> None:
    part = Ailing()
    with serving(parts=[part]) as server:
        for health, status in (("starting", "ok"), ("degraded", "degraded"), ("ok", "ok")):
            part.health = PartHealth(health)
            answer = requests.get(f"{server.url}/healthz", timeout=LIMIT_S)
            assert answer.status_code == 200
            assert answer.json()["status"] == status
            assert answer.json()["parts"]["ailing"]["health"] == health


def test_it_answers_and_errors_are_problems(caplog: pytest.LogCaptureFixture) -> None:
    with serving(routers=[routes]) as server:
        assert requests.get(f"{server.url}/healthz", timeout=LIMIT_S).json()["status"] == "ok"
        problem(requests.get(f"{server.url}/nothing", timeout=LIMIT_S), 404)
        problem(requests.put(f"{server.url}/healthz", timeout=LIMIT_S), 405)
        body = problem(requests.get(f"{server.url}/number?value=x", timeout=LIMIT_S), 422)
        assert body["problems"][0]["where"] == "query.value"
        with caplog.at_level(logging.INFO):
            body = problem(requests.get(f"{server.url}/broken", timeout=LIMIT_S), 500)
    assert "secret" not in str(body)
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == [
        "GET /broken failed: RuntimeError: the secret of the day"
    ]
    assert not any(record.exc_info for record in caplog.records)


def test_a_body_over_the_limit_is_refused_with_and_without_a_length() -> None:
    with serving(routers=[routes], max_body_bytes=1000) as server:
        url = f"{server.url}/length"
        assert requests.post(url, data=b"x" * 1000, timeout=LIMIT_S).json() == 1000
        problem(requests.post(url, data=b"x" * 1001, timeout=LIMIT_S), 413)
        pieces = (b"x" * 300 for _ in range(4))
        problem(requests.post(url, data=pieces, timeout=LIMIT_S), 413)


def test_headers_over_the_limit_end_the_connection_with_a_reason() -> None:
    with serving() as server:
        head = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 40_000
        got = exchange(server.port, head)
        assert got.startswith(b"HTTP/1.1 431 ")
        assert b"more than 16384 bytes" in got


@pytest.mark.parametrize("path", ["/nothing", "/whoami", "/length", "/session"])
@pytest.mark.parametrize("chunked", [False, True])
def test_who_sends_a_whole_body_before_reading_gets_the_answer(
    tmp_path: Path, path: str, chunked: bool
) -> None:
    tokens = tmp_path / "tokens.yml"
    token = create_token(tokens, "you", Role.ADMIN)
    # More than the buffers of both sides hold.
    pieces = [b"x" * 65536] * 320
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\n".encode()
    if path != "/session":
        head += f"authorization: Bearer {token}x\r\n".encode()
    if chunked:
        head += b"transfer-encoding: chunked\r\n\r\n"
        pieces = [b"10000\r\n" + piece + b"\r\n" for piece in pieces]
    else:
        head += f"content-length: {320 * 65536}\r\n\r\n".encode()
    with serving(tokens=TokenFile(str(tokens)), routers=[routes]) as server:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.port), LIMIT_S) as raw:
                raw.sendall(head + b"".join(pieces))
                answer = b"".join(iter(lambda: raw.recv(65536), b""))
            assert answer.startswith(b"HTTP/1.1 4")
            assert answer.endswith(b"}")


def test_what_nobody_reads_is_given_up_in_the_end() -> None:
    with serving(routers=[routes], request_timeout=0.5, max_body_bytes=10) as server:
        head = b"POST /length HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
        with (
            socket.create_connection(("127.0.0.1", server.port), LIMIT_S) as raw,
            pytest.raises(OSError, match=r"reset|Broken"),
        ):
            raw.sendall(head)
            while True:
                raw.sendall(b"1\r\nx\r\n" * 1000)


@pytest.mark.parametrize(
    "rubbish",
    [b"\0\xff\xfe rubbish\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"\r\n" * 40_000],
)
def test_rubbish_ends_its_connection_and_nothing_else(
    rubbish: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with serving() as server:
        for _ in range(10):
            got = exchange(server.port, rubbish, more=b"more\r\n\r\n")
            assert got.startswith(b"HTTP/1.1 400 Bad Request")
        assert requests.get(f"{server.url}/healthz", timeout=LIMIT_S).ok
    said = [record.getMessage() for record in caplog.records if "HTTP" in record.getMessage()]
    assert (
        len([line for line in said if line.startswith("closing the connection of 127.0.0.1:")]) == 5
    )
    assert said[-1] == "no HTTP: too many of these; only counting them now"


def test_a_request_with_two_ends_is_refused_and_nothing_after_it_is_served() -> None:
    smuggled = b"GET /whoami HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with serving(routers=[routes]) as server:
        head = b"POST /length HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n"
        size = f"content-length: {5 + len(smuggled)}\r\n\r\n".encode()
        got = exchange(server.port, head + size + b"0\r\n\r\n" + smuggled)
        assert got.startswith(b"HTTP/1.1 400 ")
        assert got.count(b"HTTP/1.1") == 1


def test_a_client_that_goes_in_the_middle_of_its_body_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    head = b"POST /length HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\nab"
    with serving(routers=[routes]) as server, caplog.at_level(logging.INFO):
        with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S) as raw:
            raw.sendall(head)
        wait_for(lambda: "audit: POST /length" in caplog.text, "the end of the request")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_what_a_peer_sends_breaks_no_line_of_the_log_and_fills_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "tokens.yml"
    token = {"authorization": f"Bearer {create_token(file, 'ops', Role.ADMIN)}"}
    request = b"M" * 5000 + b" /%0aforged" + b"x" * 5000 + b" HTTP/1.1\r\nhost: localhost\r\n"
    with (
        serving(routers=[routes], tokens=TokenFile(file)) as server,
        caplog.at_level(logging.INFO),
    ):
        for _ in range(100):
            exchange(server.port, request + b"connection: close\r\n\r\n")
        broken = f"{server.url}/broken/%0aforged"
        assert requests.get(broken, headers=token, timeout=LIMIT_S).status_code == 500
        # A client with a token is always named, however many others there were.
        requests.post(broken, headers=token, timeout=LIMIT_S)
        wait_for(lambda: "by ops from" in caplog.text, "the audit's line, after the answer")
    lines = [record.getMessage() for record in caplog.records]
    assert "GET /broken/\\nforged failed: RuntimeError: no 7 of these" in lines
    assert "audit: POST /broken/\\nforged by ops from 127.0.0.1: 405" in lines
    assert all("\n" not in line and len(line) < 400 for line in lines)
    assert 0 < len([line for line in lines if line.startswith("audit: M")]) < 50


def test_nothing_leads_to_a_host_that_the_request_named() -> None:
    with serving(routers=[routes]) as server:
        answer = requests.get(f"{server.url}/healthz/", timeout=LIMIT_S, allow_redirects=False)
        problem(answer, 404)
        assert "location" not in answer.headers


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"GET /healthz HTTP/1.1\r\nhost: l",
        b"POST /length HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\nab",
    ],
)
def test_a_request_that_does_not_arrive_in_time_ends_its_connection(beginning: bytes) -> None:
    with serving(routers=[routes], request_timeout=0.3) as server:
        got = exchange(server.port, beginning)
        # Where the application has the request already, only an end can tell.
        assert got.startswith(b"HTTP/1.1 408") or (got == b"" and beginning.startswith(b"POST"))
        assert requests.get(f"{server.url}/healthz", timeout=LIMIT_S).ok


def test_a_client_that_takes_nothing_is_dropped() -> None:
    with serving(routers=[routes], client_stall=0.3) as server, socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(LIMIT_S)
        raw.connect(("127.0.0.1", server.port))
        raw.sendall(b"GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n")
        wait_for(lambda: "0 connections" in server.web.state().summary, "the client's end")


def test_the_longest_idle_connection_makes_room_for_another() -> None:
    with serving(max_connections=2) as server:
        first, second, third = requests.Session(), requests.Session(), requests.Session()
        for session in (first, second, third, second):
            assert session.get(f"{server.url}/healthz", timeout=LIMIT_S).ok
        wait_for(lambda: "2 connections" in server.web.state().summary, "the first one's end")
        for session in (first, second, third):
            session.close()


GET = b"GET %b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n%b\r\n"


@contextlib.contextmanager
def crowded(
    tmp_path: Path, begun: Callable[[bytes], bytes]
) -> Iterator[tuple[Serving, bytes, Callable[[], socket.socket]]]:
    """Serve with all connections taken by what ``begun`` makes of a token's header."""
    file = tmp_path / "tokens.yml"
    bearer = f"authorization: Bearer {create_token(file, 'ops', Role.ADMIN)}\r\n".encode()
    with (
        serving(routers=[routes], tokens=TokenFile(file), max_connections=2) as server,
        contextlib.ExitStack() as stack,
    ):

        def connect() -> socket.socket:
            peer = socket.create_connection(("127.0.0.1", server.port), LIMIT_S)
            peer.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert peer.recv(1000).startswith(b"HTTP/1.1 200")
            peer.sendall(begun(bearer))
            return stack.enter_context(peer)

        for _ in range(2):
            connect()
        wait_for(lambda: "2 connections" in server.web.state().summary, "the others")
        yield server, bearer, connect


def test_who_has_no_valid_token_makes_room_however_busy(tmp_path: Path) -> None:
    with crowded(tmp_path, lambda _: b"POST /session HTTP/1.1\r\n") as (server, bearer, connect):
        for _ in range(70):
            connect()
            assert exchange(server.port, GET % (b"/healthz", b"")).startswith(b"HTTP/1.1 200")
        assert exchange(server.port, GET % (b"/whoami", bearer)).startswith(b"HTTP/1.1 200")


def test_the_last_connections_are_for_health_checks_and_tokens(tmp_path: Path) -> None:
    def begun(bearer: bytes) -> bytes:
        return b"POST /length HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n%b\r\nx" % bearer

    with crowded(tmp_path, begun) as (server, bearer, _):
        assert exchange(server.port, GET % (b"/healthz", b"")).startswith(b"HTTP/1.1 200")
        assert exchange(server.port, GET % (b"/whoami", bearer)).startswith(b"HTTP/1.1 200")
        assert exchange(server.port, GET % (b"/session", b"")).startswith(b"HTTP/1.1 503")


def test_tokens_are_asked_for_and_taken_up_by_a_reload(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yml"
    token = create_token(file, "ops", Role.ADMIN)
    with serving(routers=[routes], tokens=TokenFile(file)) as server:
        refused = requests.get(f"{server.url}/whoami", timeout=LIMIT_S)
        problem(refused, 401)
        assert refused.headers["www-authenticate"] == "Bearer"
        bearer = {"authorization": f"Bearer {token}"}
        found = requests.get(f"{server.url}/whoami", headers=bearer, timeout=LIMIT_S)
        assert found.json() == "ops"
        assert requests.get(f"{server.url}/healthz", timeout=LIMIT_S).ok

        file.write_text("tokens: []")
        other = create_token(file, "new", Role.READER)
        settings = ApiSettings(tokens_file=str(file))
        server.reload(settings)
        assert server.call(_whoami(server.url, token)) == 401
        assert server.call(_whoami(server.url, other)) == 200


async def _whoami(url: str, token: str) -> int:
    def ask() -> int:
        bearer = {"authorization": f"Bearer {token}"}
        return requests.get(f"{url}/whoami", headers=bearer, timeout=LIMIT_S).status_code

    return await asyncio.to_thread(ask)


def test_a_wrong_tokens_file_refuses_the_reload_and_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yml"
    token = create_token(file, "ops", Role.ADMIN)
    with serving(routers=[routes], tokens=TokenFile(file)) as server:
        # Nobody is let in without a token because the file is just being written.
        for wrong in ("tokens: nonsense", "", "# none\n", None):
            file.unlink() if wrong is None else file.write_text(wrong)
            with pytest.raises(SettingError, match="tokens_file"):
                server.reload(ApiSettings(tokens_file=str(file)))
            assert requests.get(f"{server.url}/whoami", timeout=LIMIT_S).status_code == 401
        bearer = {"authorization": f"Bearer {token}"}
        assert requests.get(f"{server.url}/whoami", headers=bearer, timeout=LIMIT_S).ok


def test_a_reload_refuses_what_the_next_start_would(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yml"
    token = create_token(file, "ops", Role.ADMIN)
    with serving(routers=[routes], tokens=TokenFile(file)) as server:
        server.reload(ApiSettings(tokens_file=str(file)))
        with pytest.raises(SettingError, match=r"uri: .*open to other hosts"):
            server.reload(ApiSettings(uri=("0.0.0.0", 9000), tokens_file=None))
        assert requests.get(f"{server.url}/whoami", timeout=LIMIT_S).status_code == 401
        bearer = {"authorization": f"Bearer {token}"}
        assert requests.get(f"{server.url}/whoami", headers=bearer, timeout=LIMIT_S).ok


async def test_it_refuses_to_be_open_to_others_without_tokens() -> None:
    web = Web(ApiSettings(uri=("0.0.0.0", 0)), tokens=TokenFile(None), parts=list)
    with pytest.raises(SettingError, match="open to other hosts") as caught:
        await web.start()
    assert caught.value.exit_status == 78


async def test_an_address_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = taken.getsockname()
        web = Web(ApiSettings(uri=address), tokens=TokenFile(None), parts=list)
        with pytest.raises(ListenError, match=r"api.uri: cannot listen on 127.0.0.1:\d+"):
            await web.start()
