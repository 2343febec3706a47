from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.tokens import ANYONE, Principal, Role, Tokens
from monitor.web.http.access import COOKIE, Access, Refusal

ROLES = {f"{role}-token": Principal(role.value, role) for role in Role}
TOKENS = Tokens([(hashlib.sha256(t.encode()).hexdigest(), p) for t, p in ROLES.items()])
LOCAL = {"host": "127.0.0.1:9000"}


def access(tokens: Tokens = TOKENS, **options: Any) -> Access:
    # The secret of each session is its token here.
    return Access(lambda: tokens, session=tokens.identify, **options)


def bearer(token: str, **more: str) -> dict[str, str]:
    return {"host": "monitor.example", "authorization": f"Bearer {token}"} | more


def status(found: Principal | Refusal | None) -> int:
    return found.status if isinstance(found, Refusal) else 200


def test_without_tokens_anyone_on_loopback_may_do_all() -> None:
    assert access(Tokens()).check("POST", "/job", LOCAL) == ANYONE


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9000", "10.0.0.1", "[::2]:9000"])
def test_without_tokens_a_name_that_merely_resolves_to_loopback_is_refused(host: str) -> None:
    rebinding = {"host": host, "origin": f"http://{host}"}
    assert status(access(Tokens()).check("GET", "/job", rebinding)) == 403


@pytest.mark.parametrize("host", ["localhost:9000", "127.0.0.1", "[::1]:9000", "LOCALHOST"])
def test_without_tokens_every_name_of_loopback_is_served(host: str) -> None:
    assert access(Tokens()).check("GET", "/job", {"host": host}) == ANYONE


@pytest.mark.parametrize(
    ("role", "read", "change", "websocket"),
    [("admin", 200, 200, 200), ("reader", 200, 403, 200), ("sender", 403, 403, 200)],
)
def test_roles(role: str, read: int, change: int, websocket: int) -> None:
    headers = bearer(f"{role}-token")
    assert status(access().check("GET", "/job", headers)) == read
    assert status(access().check("DELETE", "/job/1", headers)) == change
    assert status(access().check("GET", "/ws", headers, websocket=True)) == websocket


@pytest.mark.parametrize("value", ["Bearer nope", "Bearer", "Basic YTpi", "admin-token", "Bearer "])
def test_a_bad_token_is_401_even_beside_a_good_cookie(value: str) -> None:
    headers = {"host": "h", "authorization": value, "cookie": f"{COOKIE}=admin-token"}
    assert status(access().check("GET", "/job", headers)) == 401


def test_health_is_open_and_nothing_near_it() -> None:
    for path in ("/healthz", "/readyz"):
        assert access().check("GET", path, {"host": "10.1.1.1:9000"}) is None
    for path in ("/healthz/", "/healthz/../job", "/Healthz", "/metrics"):
        assert status(access().check("GET", path, LOCAL)) == 401


def test_a_folder_can_be_open() -> None:
    opened = access(open_paths=["/static/"])
    assert opened.check("GET", "/static/app.js", LOCAL) is None
    assert status(opened.check("GET", "/statics", LOCAL)) == 401


def test_the_page_can_be_open_and_opens_nothing_else() -> None:
    opened = access(open_paths=["/"])
    assert opened.check("GET", "/", LOCAL) is None
    for path in ("/job", "/ws", "//", ""):
        assert status(opened.check("GET", path, LOCAL)) == 401


def test_the_page_changes_things_by_its_cookie_only_from_its_own_origin() -> None:
    cookie = {"host": "monitor.example", "cookie": f"a=b; {COOKIE}=admin-token"}
    check = access().check
    assert status(check("GET", "/job", cookie)) == 200
    assert status(check("POST", "/job", cookie | {"origin": "https://monitor.example"})) == 200
    assert status(check("POST", "/job", cookie)) == 403
    assert status(check("POST", "/job", cookie | {"origin": "https://evil.example"})) == 403
    assert status(check("POST", "/job", cookie | {"origin": "null"})) == 403


def test_a_websocket_of_a_foreign_page_is_refused_unless_its_origin_is_allowed() -> None:
    foreign = {"host": "monitor.example", "cookie": f"{COOKIE}=admin-token"}
    foreign |= {"origin": "https://wall.example"}
    assert status(access().check("GET", "/ws", foreign, websocket=True)) == 403
    allowed = access(origins=["https://wall.example"])
    assert status(allowed.check("GET", "/ws", foreign, websocket=True)) == 200
    refused = access().check("GET", "/ws", foreign, websocket=True)
    assert "pages of https://wall.example are" in getattr(refused, "detail", "")


@pytest.mark.parametrize("origin", ["https://wall.example", "null", "file://", "", "nonsense"])
def test_a_valid_bearer_token_is_enough_whatever_the_origin(origin: str) -> None:
    check = access().check
    assert status(check("POST", "/job", bearer("admin-token", origin=origin))) == 200
    assert status(check("GET", "/ws", bearer("admin-token", origin=origin), websocket=True)) == 200
    assert status(check("POST", "/job", bearer("wrong", origin=origin))) in (401, 403)
    # Without any tokens nobody proves who they are, and a page must not act for its user.
    anyone = Access(lambda: Tokens({})).check("POST", "/job", LOCAL | {"origin": origin})
    assert status(anyone) == 403


header = st.sampled_from(["host", "origin", "cookie", "authorization"])


@given(
    st.dictionaries(header, st.text(max_size=80)),
    st.text(max_size=20),
    st.booleans(),
)
def test_no_headers_without_a_token_get_in_or_break_it(
    headers: dict[str, str], path: str, websocket: bool
) -> None:
    found = access().check("POST", "/x" + path, headers, websocket=websocket)
    assert isinstance(found, Refusal)
