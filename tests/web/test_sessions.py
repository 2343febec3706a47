from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from monitor.part import Health, Part, State
from monitor.tokens import Role, TokenFile, create_token, digest, revoke_token
from monitor.web.http.access import COOKIE
from monitor.web.http.attempts import Attempts
from monitor.web.http.sessions import Sessions
from monitor.web.settings import ApiSettings
from tests.waiting import LIMIT_S, wait_for
from tests.web.serving import Serving, serving


class Troubled(Part):
    """A part whose problem names what only an operator should see."""

    name = "troubled"

    async def start(self) -> None: ...
    async def run(self) -> None: ...
    async def drain(self) -> None: ...
    async def close(self) -> None: ...

    def state(self) -> State:
        return State(Health.DEGRADED, "database shop at db-7.internal: role monitor is locked")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))


@pytest.fixture
def tokens(tmp_path: Path) -> dict[str, str]:
    file = tmp_path / "tokens.yml"
    return {role.value: create_token(file, role.value, role) for role in Role}


@pytest.fixture
def server(tmp_path: Path, tokens: dict[str, str]) -> Iterator[Serving]:
    del tokens
    with serving(parts=[Troubled()], tokens=TokenFile(tmp_path / "tokens.yml")) as server:
        yield server


def ask(server: Serving, path: str, method: str = "GET", **options: Any) -> requests.Response:
    return requests.request(method, server.url + path, timeout=LIMIT_S, **options)


def log_in(server: Serving, token: str) -> str:
    answer = ask(server, "/session", "POST", json={"token": token})
    assert answer.status_code == 200
    return answer.cookies[COOKIE]


def by_cookie(secret: str) -> dict[str, Any]:
    return {"headers": {"cookie": f"{COOKIE}={secret}"}}


def log_out(server: Serving, secret: str) -> None:
    headers = {"cookie": f"{COOKIE}={secret}", "origin": server.url}
    assert ask(server, "/session", "DELETE", headers=headers).status_code == 204


def reload(server: Serving, tmp_path: Path) -> None:
    file = str(tmp_path / "tokens.yml")
    server.reload(ApiSettings(uri=("127.0.0.1", 0), tokens_file=file))


def test_a_cookie_is_no_token_and_worthless_after_the_logout(
    server: Serving, tokens: dict[str, str]
) -> None:
    first, second = (log_in(server, tokens["reader"]) for _ in range(2))
    assert tokens["reader"] not in first
    assert ask(server, "/docs", **by_cookie(first)).status_code == 200
    # Neither stands for the other.
    assert ask(server, "/docs", **by_cookie(tokens["reader"])).status_code == 401
    bearer = {"authorization": f"Bearer {first}"}
    assert ask(server, "/docs", headers=bearer).status_code == 401
    with connect(
        f"{server.websocket_url}/live",
        additional_headers={"cookie": f"{COOKIE}={first}", "origin": server.url},
    ) as page:
        log_out(server, first)
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                page.recv(timeout=LIMIT_S)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
    assert ask(server, "/docs", **by_cookie(first)).status_code == 401
    assert ask(server, "/docs", **by_cookie(second)).status_code == 200


def test_a_login_survives_a_restart_and_a_logout_does_too(
    tmp_path: Path, tokens: dict[str, str]
) -> None:
    file = tmp_path / "tokens.yml"
    with serving(tokens=TokenFile(file)) as server:
        stays, ends = (log_in(server, tokens["reader"]) for _ in range(2))
        log_out(server, ends)
    kept = tmp_path / "sessions.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    for secret in (stays, ends, tokens["reader"]):
        assert secret not in kept.read_text()
    with serving(tokens=TokenFile(file)) as server:
        assert ask(server, "/docs", **by_cookie(stays)).status_code == 200
        assert ask(server, "/docs", **by_cookie(ends)).status_code == 401
    kept.write_text("{")
    with serving(tokens=TokenFile(file)) as server:
        assert ask(server, "/docs", **by_cookie(stays)).status_code == 401
        log_in(server, tokens["reader"])


def test_a_session_ends_with_its_token(
    server: Serving, tokens: dict[str, str], tmp_path: Path
) -> None:
    reader, admin = log_in(server, tokens["reader"]), log_in(server, tokens["admin"])
    file = tmp_path / "tokens.yml"
    before = file.read_text()
    revoke_token(file, "reader")
    reload(server, tmp_path)
    assert ask(server, "/docs", **by_cookie(reader)).status_code == 401
    assert ask(server, "/docs", **by_cookie(admin)).status_code == 200
    saved = tmp_path / "sessions.json"
    wait_for(lambda: digest(reader) not in saved.read_text(), "the end of the session")
    assert digest(admin) in saved.read_text()
    # The token comes back, and its sessions do not.
    file.write_text(before)
    reload(server, tmp_path)
    assert ask(server, "/docs", headers={"authorization": f"Bearer {tokens['reader']}"}).ok
    assert ask(server, "/docs", **by_cookie(reader)).status_code == 401
    assert ask(server, "/docs", **by_cookie(admin)).status_code == 200


def test_a_session_whose_token_went_while_the_daemon_was_away_stays_ended(
    tokens: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "tokens.yml"
    before = file.read_text()
    with serving(tokens=TokenFile(file)) as server:
        reader = log_in(server, tokens["reader"])
    revoke_token(file, "reader")
    with serving(tokens=TokenFile(file)) as server:
        file.write_text(before)
        reload(server, tmp_path)
        assert ask(server, "/docs", **by_cookie(reader)).status_code == 401


def test_a_token_that_expires_is_refused_from_then_on_and_its_websocket_closed(
    server: Serving, tmp_path: Path
) -> None:
    file = tmp_path / "tokens.yml"
    short = create_token(file, "short", Role.READER, expires=time.time() + 3)
    reload(server, tmp_path)
    bearer = {"authorization": f"Bearer {short}"}
    assert ask(server, "/docs", headers=bearer).status_code == 200
    secret = log_in(server, short)
    with connect(f"{server.websocket_url}/live", additional_headers=bearer) as page:
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                page.recv(timeout=LIMIT_S)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
    assert ask(server, "/docs", headers=bearer).status_code == 401
    assert ask(server, "/docs", **by_cookie(secret)).status_code == 401


def test_when_all_tokens_have_expired_nobody_gets_in(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yml"
    create_token(file, "old", Role.ADMIN, expires=time.time() - 1)
    with serving(tokens=TokenFile(file)) as server:
        assert ask(server, "/docs").status_code == 401
        assert ask(server, "/session").json() == {"name": None, "role": None, "login": True}


def test_invalid_tokens_are_limited_and_valid_ones_always_pass(
    server: Serving, tokens: dict[str, str]
) -> None:
    def statuses(count: int, **options: Any) -> set[int]:
        return {ask(server, **options).status_code for _ in range(count)}

    wrong = {"authorization": "Bearer wrong"}
    assert statuses(15, path="/docs", headers=wrong) == {401}
    answer: requests.Response | None = None
    for _ in range(40):
        answer = ask(server, "/session", "POST", json={"token": "wrong"})
        if answer.status_code != 401:
            break
    assert answer is not None
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["content-type"] == "application/problem+json"
    for options in (
        {"path": "/docs", "headers": wrong},
        {"path": "/session", **by_cookie("wrong")},
        {"path": "/ws", "headers": wrong | {"connection": "upgrade", "upgrade": "websocket"}},
    ):
        assert 429 in statuses(20, **options), options
    right = {"authorization": f"Bearer {tokens['reader']}"}
    assert ask(server, "/docs", headers=right).status_code == 200
    assert ask(server, "/docs", **by_cookie(log_in(server, tokens["reader"]))).status_code == 200
    # Without a token nothing is tried; and supervisors are never refused.
    assert statuses(30, path="/docs") == {401}
    assert statuses(30, path="/healthz", headers=wrong) == {200}


def test_attempts_are_limited_by_address_and_in_all() -> None:
    attempts = Attempts()
    assert sum(not attempts.fail("10.0.0.1", 0.0) for _ in range(100)) == 20
    assert not attempts.fail("10.0.0.2", 0.0)
    # All addresses of one network of IPv6 are one client's.
    assert sum(not attempts.fail(f"2001:db8::{n:x}", 0.0) for n in range(100)) == 20
    assert sum(not attempts.fail(f"10.1.{n}.1", 0.0) for n in range(250)) < 200
    wait = attempts.fail("10.9.9.9", 0.0)
    assert 0 < wait <= 60
    assert not attempts.fail("10.9.9.9", wait)
    for number in range(5000):
        attempts.fail(f"10.{number // 250}.{number % 250}.9", 100.0)
    assert len(attempts._addresses) <= 1000


def test_a_login_takes_no_more_than_a_token_from_anybody(server: Serving) -> None:
    answer = ask(server, "/session", "POST", data=b'{"token": "' + b"x" * 100_000)
    assert answer.status_code == 413
    for body in (b"", b"[" * 4000, b"\xff", b'{"token": 1}', b'{"token": "a", "b": 1}'):
        assert ask(server, "/session", "POST", data=body).status_code == 422


def test_of_a_token_given_twice_the_last_one_counts(
    server: Serving, tokens: dict[str, str]
) -> None:
    for last, status in ((tokens["reader"], 200), ("wrong", 401)):
        data = f'{{"token": "{tokens["admin"]}", "token": "{last}"}}'
        answer = ask(server, "/session", "POST", data=data)
        assert answer.status_code == status
        if status == 200:
            assert answer.json()["role"] == "reader"


def test_sessions_are_bounded_and_the_oldest_end(tmp_path: Path, tokens: dict[str, str]) -> None:
    file = TokenFile(tmp_path / "tokens.yml")
    file.load()
    now = 1000.0
    sessions = Sessions(file, now=lambda: now)
    first, lasts_s = sessions.begin(tokens["reader"])
    assert lasts_s == 30 * 86400
    others = [sessions.begin(tokens["reader"])[0] for _ in range(100)]
    assert len(sessions) == 100
    assert sessions.owner(first) is None
    assert sessions.owner(others[0]) is not None
    now += lasts_s
    assert sessions.owner(others[0]) is None


def test_health_without_a_token_says_how_things_are_and_not_why(
    server: Serving, tokens: dict[str, str]
) -> None:
    def parts(**headers: str) -> Any:
        found = ask(server, "/healthz", headers=headers).json()
        assert found["status"] == "degraded"
        return found["parts"]["troubled"]

    assert parts()["health"] == "degraded"
    for headers in ({}, {"authorization": f"Bearer {tokens['sender']}"}, {"cookie": "a=b"}):
        text = str(parts(**headers))
        assert "internal" not in text
        assert "role" not in text
    assert "db-7.internal" in parts(authorization=f"Bearer {tokens['reader']}")["summary"]
    answer = ask(server, "/readyz").text
    assert "internal" not in answer


def test_a_page_that_rebinds_its_name_to_loopback_learns_no_more() -> None:
    with serving(parts=[Troubled()]) as server:
        assert "db-7.internal" in ask(server, "/healthz").text
        foreign = ask(server, "/healthz", headers={"host": "evil.example"})
        assert foreign.status_code == 200
        assert "internal" not in foreign.text


def test_the_audit_names_the_token_of_a_login(
    server: Serving, tokens: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    secret = log_in(server, tokens["reader"])
    log_out(server, secret)
    ask(server, "/session", "POST", json={"token": "wrong"})
    expected = (
        "audit: POST /session by nobody from 127.0.0.1: 200, reader (reader) logged in",
        "audit: DELETE /session by reader from 127.0.0.1: 204, logged out",
        "audit: POST /session by nobody from 127.0.0.1: 401",
    )
    # A line is written after the answer is sent: each look is at a new list.
    wait_for(lambda: set(expected) <= set(caplog.messages), "the audit's lines")
