"""The log routes over HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import requests
from websockets.sync.client import connect

from monitor.tokens import Role, TokenFile, create_token
from tests.logs.transports import Service, ask, entry, service, texts
from tests.waiting import LIMIT_S


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

        def twice(first: str, last: str) -> bytes:
            return f'{{"sender": "{first}", "sender": "{last}", {json.dumps(one)[1:]}'.encode()

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
            ("/log", twice("sender-1", "other"), "sender", 403, "forbidden"),
            ("/log", one, "reader", 403, "forbidden"),
        ):
            answer = post(path, body, role)
            assert (answer.status_code, answer.json()["code"]) == (status, code), body
            assert answer.headers["content-type"] == "application/problem+json"
        # Of a key given twice the last one counts.
        assert post("/log", twice("other", "sender-1")).json()["accepted"] == 1
        # A page of another site cannot have the token.
        assert post("/log", one, origin="https://other.example").status_code == 200
        assert (
            requests.post(f"{found.server.url}/log", data=b"{}", timeout=LIMIT_S).status_code == 401
        )
        admin = {"authorization": f"Bearer {made['admin']}"}
        url = f"{found.server.url}/log"
        query = {"from": "2001-01-01T00:00:00Z", "not": ["x", "y"]}
        page = requests.get(url, params=query, headers=admin, timeout=LIMIT_S)
        assert texts(page.json()) == ["one"] * 5
        for regexp, matching in (("^on.$", ["one"] * 5), ("two", [])):
            page = requests.get(url, params={"regexp": regexp}, headers=admin, timeout=LIMIT_S)
            assert texts(page.json()) == matching
        wrong = requests.get(url, params={"regexp": "("}, headers=admin, timeout=LIMIT_S)
        assert wrong.status_code == 422
        assert "not a regular expression: missing )" in wrong.json()["detail"]
        wrong = requests.get(url, params={"from": "soon"}, headers=admin, timeout=LIMIT_S)
        assert wrong.status_code == 422
