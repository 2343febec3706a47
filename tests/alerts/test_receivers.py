"""Receivers that are slow, down, hang, lie, refuse, redirect or ask for patience."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import math
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.alerts.incidents import Incident
from monitor.alerts.receivers import Message
from monitor.alerts.receivers.apprise_url import AppriseUrl
from monitor.alerts.receivers.webhook import Webhook
from monitor.alerts.schedule import GIVE_UP_S, next_attempt
from monitor.alerts.settings import Receiver
from monitor.errors import SettingError
from monitor.part import Health
from tests.alerts.receiver import HttpReceiver, Request, response
from tests.alerts.running import SITE, running, webhook
from tests.ports import free_port
from tests.waiting import until

MESSAGE = Message(
    event="opened",
    delivery="d1",
    incidents=[
        Incident(
            id="i1",
            rule="site",
            watch="site",
            subject="1",
            title="example is down",
            opened_at=1_700_000_000.0,
            reason="timeout",
        )
    ],
    page="https://monitor.example.org/",
    now=1_700_000_001.0,
)


@pytest.mark.usefixtures("soon")
async def test_a_receiver_that_was_down_gets_everything_in_order_with_the_same_ids(
    tmp_path: Path,
) -> None:
    port = free_port()
    config = webhook(f"http://127.0.0.1:{port}/hook", {**SITE, "failures": 1})
    async with running(tmp_path, config) as now:
        await now.check((1, False))
        await now.until(lambda found: found and found[0].notified and found[0].notified[0].error)
        await now.check((1, True), (2, False))
        await now.until(lambda found: sum(len(each.notified) for each in found) == 3)
        await until(lambda: now.part.state().health is Health.DEGRADED)
        assert "receiver hook did not accept a message" in now.part.state().summary
        failing = iter([500, 503])
        receiver = HttpReceiver(lambda _: response(next(failing, 200)), port=port)
        async with receiver:
            await receiver.until(3)
            events = receiver.events()
            assert events.index(("opened", "1")) < events.index(("resolved", "1"))
            assert ("opened", "2") in events
            first = receiver.requests[0].headers["x-delivery"]
            assert [each.headers["x-delivery"] for each in receiver.requests[:3]] == [first] * 3
            found = await now.until(lambda found: all(n.at for i in found for n in i.notified))
            assert found[0].notified[0].attempts >= 4
            assert found[0].notified[0].error is None
            await until(lambda: now.part.state().health is Health.OK)


async def test_one_receiver_that_hangs_or_refuses_holds_up_no_other(tmp_path: Path) -> None:
    async with (
        HttpReceiver(lambda _: None) as hanging,
        HttpReceiver(lambda _: response(400, body="no such channel")) as refusing,
        HttpReceiver() as good,
    ):
        config = {
            "group_wait": 0,
            "receivers": [
                {"name": "hanging", "webhook": hanging.url},
                {"name": "refusing", "webhook": refusing.url},
                {"name": "good", "webhook": good.url},
            ],
            "rules": [{**SITE, "failures": 1, "receivers": ["hanging", "refusing", "good"]}],
        }
        async with running(tmp_path, config) as now:
            await now.check((1, False))
            await good.until(1)
            await now.check((1, True))
            await good.until(2)
            # What it refuses holds up nothing after it.
            await until(
                lambda: {"opened", "resolved"} <= {e.json["event"] for e in refusing.requests}
            )
            found = await now.until(
                lambda found: any(n.error and n.receiver == "refusing" for n in found[0].notified)
            )
            errors = {notice.error for notice in found[0].notified if notice.receiver == "refusing"}
            assert errors <= {"400 no such channel", None}
            assert {each.json["event"] for each in hanging.requests} <= {"opened"}


@pytest.mark.parametrize("count", [1, 100, 101, 3000])
@pytest.mark.parametrize("redirects", [False, True])
async def test_a_message_about_many_incidents_is_whole_and_signed(
    count: int, redirects: bool
) -> None:
    incidents = [
        msgspec.structs.replace(MESSAGE.incidents[0], id=f"i{number}", title=f"‘{number}’ is down")
        for number in range(count)
    ]
    async with HttpReceiver() as target:
        there = {"Location": f"http://127.0.0.1:{target.port}/new"}
        async with HttpReceiver(lambda _: response(307, there)) as first:
            hook = Webhook("hook", first.url if redirects else target.url, "key")
            assert (await hook.send(replace(MESSAGE, incidents=incidents))).accepted
    (request,) = target.requests
    digest = hmac.new(b"key", request.body, hashlib.sha256).hexdigest()
    assert request.headers["x-signature-256"] == f"sha256={digest}"
    found = request.json
    assert list(found) == ["event", "incident", "incidents", "delivery"]
    assert found["incident"] == found["incidents"][0]
    assert msgspec.convert(found["incidents"], list[Incident]) == [
        msgspec.structs.replace(each, notified=[]) for each in incidents
    ]


@pytest.mark.parametrize("status", [307, 308])
async def test_a_redirect_that_keeps_the_method_is_followed_with_the_same_body(
    status: int,
) -> None:
    async with HttpReceiver() as target:
        there = {"Location": f"http://127.0.0.1:{target.port}/new"}
        async with HttpReceiver(lambda _: response(status, there)) as receiver:
            outcome = await Webhook("hook", receiver.url, "key").send(MESSAGE)
            assert outcome.accepted
            assert target.requests[0].body == receiver.requests[0].body
            assert target.requests[0].path == "/new"
            names = ("x-delivery", "x-signature-256")
            for name in names:
                assert target.requests[0].headers[name] == receiver.requests[0].headers[name]


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_another_redirect_is_an_error_that_names_where_it_leads(status: int) -> None:
    there = {"Location": "https://user:secret@new.example.org/token"}
    async with HttpReceiver(lambda _: response(status, there)) as receiver:
        outcome = await Webhook("hook", receiver.url, None).send(MESSAGE)
        assert not outcome.accepted
        assert outcome.refused
        assert outcome.said == (
            f"{status}, redirects to https://new.example.org, which is not followed; change the URL"
        )


async def test_redirects_in_a_circle_end() -> None:
    async with HttpReceiver(lambda _: response(307, {"Location": "/hook"})) as receiver:
        outcome = await Webhook("hook", receiver.url, None).send(MESSAGE)
        assert outcome.said == "too many redirects"
        assert len(receiver.requests) == 4


@pytest.mark.parametrize(
    "where", ["http://[", "//[::1/", "http://℀.example/", "ftp://x/", "http://x:99999"]
)
async def test_a_redirect_to_what_is_not_a_url_is_an_error(where: str) -> None:
    async with HttpReceiver(lambda _: response(307, {"Location": where})) as receiver:
        outcome = await Webhook("hook", receiver.url, None).send(MESSAGE)
        assert (outcome.accepted, outcome.refused) == (False, True)
        assert outcome.said == "307, redirects to what is not a URL of HTTP"


@pytest.mark.parametrize("url", ["https://[", "https://x:99999/", "https://a℀b/", "https://a b/"])
def test_a_webhook_that_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(SettingError) as raised:
        Receiver(name="hook", webhook=url).verify()
    assert raised.value.path == ("webhook",)
    assert url not in str(raised.value)


async def test_urls_that_are_not_ascii_are_sent_as_browsers_send_them() -> None:
    async with HttpReceiver() as target:
        there = {"Location": f"http://127.0.0.1:{target.port}/grün"}
        async with HttpReceiver(lambda _: response(308, there)) as receiver:
            outcome = await Webhook("hook", f"{receiver.url}/日本", None).send(MESSAGE)
            assert outcome.accepted
            assert receiver.requests[0].path == "/hook/%E6%97%A5%E6%9C%AC"
            assert target.requests[0].path == "/gr%C3%BCn"


@pytest.mark.parametrize(
    ("wanted", "patience_s"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("9" * 400, math.inf),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("-5", None),
        ("soon", None),
        ("1e9", None),
        ("Fri, 99 Dec 9999 99:99:99 GMT", None),
    ],
)
async def test_a_receiver_that_asks_for_patience_gets_it_within_reason(
    wanted: str, patience_s: float | None
) -> None:
    async with HttpReceiver(lambda _: response(429, {"Retry-After": wanted})) as receiver:
        outcome = await Webhook("hook", receiver.url, None).send(MESSAGE)
    assert (outcome.accepted, outcome.refused) == (False, False)
    assert outcome.retry_after_s == patience_s
    at = next_attempt(attempts=1, created_at=0.0, now=9.0, retry_after_s=outcome.retry_after_s)
    assert at is not None
    assert 10 <= at <= 9 + 3600


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        # It accepts, and then says less than it promised.
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nok", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000, True),
        (b"", False),
        (b"nonsense\r\n\r\n", False),
        (b"HTTP/1.1 999 Huh\r\n\r\n", False),
        (b"HTTP/1.1 500 \xff\x00\r\nContent-Length: 3\r\n\r\n\x1b[1", False),
    ],
)
async def test_whatever_a_receiver_says_is_accepted_or_an_error_in_a_line(
    answer: bytes, accepted: bool
) -> None:
    async with HttpReceiver(lambda _: answer) as receiver:
        outcome = await Webhook("hook", receiver.url, None).send(MESSAGE)
        assert outcome.accepted is accepted
        assert outcome.said.isprintable()
        assert len(outcome.said) < 600


async def test_a_message_is_as_long_as_its_service_takes_and_says_how_many_more_there_are() -> None:
    incidents = [
        msgspec.structs.replace(MESSAGE.incidents[0], id=f"i{number}", reason="x" * 1000)
        for number in range(30)
    ]
    async with HttpReceiver() as receiver:
        target = AppriseUrl("phone", f"ntfy://127.0.0.1:{receiver.port}/topic")
        assert (await target.send(replace(MESSAGE, incidents=incidents))).accepted
    text = receiver.requests[0].json["message"]
    assert len(text) <= 7800
    assert text.count("example is down") == 6
    assert text.endswith("and 24 more: https://monitor.example.org/#/incidents")


async def test_a_message_through_apprise_and_what_its_service_refuses_without_secrets(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    statuses = iter([200, 401])
    answers = lambda _: response(next(statuses), body="bad sesame")  # noqa: E731
    async with HttpReceiver(answers) as receiver:
        url = f"json://me:sesame@127.0.0.1:{receiver.port}/path-of-a-token"
        target = AppriseUrl("oncall", url)
        assert (await target.send(MESSAGE)).said == "json: accepted"
        body = receiver.requests[0].json
        assert body["title"] == "example is down"
        assert "since 2023-11-14 22:13:20 UTC\ntimeout\n" in body["message"]
        assert "https://monitor.example.org/#/incidents/i1" in body["message"]
        outcome = await target.send(MESSAGE)
        assert not outcome.accepted
        assert "401" in outcome.said
        # What Apprise logs has the URL, and goes nowhere.
        assert not logging.getLogger("apprise").propagate
        for secret in ("sesame", "path-of-a-token"):
            assert secret not in outcome.said
            assert not any(
                secret in record.getMessage()
                for record in caplog.records
                if record.name.startswith("monitor")
            )
            assert secret not in target.key


async def test_a_url_that_apprise_does_not_know_is_refused_without_it(tmp_path: Path) -> None:
    outcome = await AppriseUrl("oncall", "nosuch://sesame").send(MESSAGE)
    assert outcome.said == "a nosuch URL that Apprise does not understand"


async def test_a_test_returns_what_the_receiver_said(tmp_path: Path) -> None:
    def answer(request: Request) -> bytes:
        return response(200 if json.loads(request.body)["event"] == "test" else 500, body="hi")

    async with HttpReceiver(answer) as receiver, running(tmp_path, webhook(receiver.url)) as now:
        (outcome,) = await now.part.test("hook")
        assert (outcome.accepted, outcome.said) == (True, "200 hi")
        with pytest.raises(KeyError):
            await now.part.test("nobody")


@given(
    attempts=st.integers(1, 500),
    age=st.floats(-1e6, 2 * GIVE_UP_S),
    asked=st.none() | st.floats(0, 1e9),
)
def test_attempts_are_spaced_and_end_after_a_day(
    attempts: int, age: float, asked: float | None
) -> None:
    now = time.time()
    at = next_attempt(attempts=attempts, created_at=now - age, now=now, retry_after_s=asked)
    if age >= GIVE_UP_S:
        assert at is None
    else:
        assert at is not None
        assert now + 1 <= at <= now + 3600
