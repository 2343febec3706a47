"""Mail over a real SMTP server: plain, with STARTTLS, with a password."""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from email import message_from_bytes
from email.message import Message as Mail
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.smtp import SMTP, AuthResult
from msgspec.structs import replace

from monitor.alerts.receivers import apprise_url
from monitor.alerts.receivers.apprise_url import AppriseUrl
from tests.alerts.test_receivers import MESSAGE
from tests.waiting import until

pytestmark = pytest.mark.filterwarnings(
    # aiosmtpd, without TLS
    "ignore:Requiring AUTH while not requiring TLS"
)


class Inbox:
    """Keeps what it is sent, and whether that was encrypted."""

    def __init__(self) -> None:
        self.mails: list[Mail] = []
        self.encrypted: list[bool] = []
        self.users: list[str | None] = []
        self.accepts = asyncio.Event()
        self.accepts.set()

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        del server
        self.mails.append(message_from_bytes(envelope.content))
        self.encrypted.append(session.ssl is not None)
        self.users.append(session.auth_data)
        await self.accepts.wait()
        return "250 OK"


def authenticate(*given: Any) -> AuthResult:
    login = given[-1]
    good = (login.login, login.password) == (b"monitor", b"sesame")
    return AuthResult(success=good, handled=False, auth_data=login.login.decode())


StartServer = Callable[..., Awaitable[tuple[Inbox, int]]]


@pytest.fixture
async def start_server() -> AsyncIterator[StartServer]:
    running: list[asyncio.Server] = []

    async def start(**options: Any) -> tuple[Inbox, int]:
        inbox = Inbox()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: SMTP(inbox, **options), "127.0.0.1", 0)
        running.append(server)
        return inbox, server.sockets[0].getsockname()[1]

    yield start
    for server in running:
        server.close()
        await server.wait_closed()


async def test_plain_mail_says_what_since_when_and_why_and_has_the_id_of_its_delivery(
    start_server: StartServer,
) -> None:
    inbox, port = await start_server()
    url = f"mailto://127.0.0.1:{port}?from=monitor@example.org&to=oncall@example.org"
    outcome = await AppriseUrl("oncall", url).send(MESSAGE)
    assert outcome.accepted, outcome.said
    (mail,) = inbox.mails
    assert str(mail["Subject"]) == "example is down"
    assert mail["To"] == "oncall@example.org"
    assert mail["Message-ID"].startswith(f"<{MESSAGE.delivery}@")
    (part,) = (part for part in mail.walk() if part.get_content_type() == "text/plain")
    lines = part.get_payload(decode=True).decode().splitlines()  # type: ignore[union-attr]
    assert {"example is down", "since 2023-11-14 22:13:20 UTC", "timeout"} <= set(lines)
    assert "rule site, incident i1" in lines


async def test_mail_in_html_shows_names_and_lines_as_they_are(start_server: StartServer) -> None:
    inbox, port = await start_server()
    url = f"mailto://127.0.0.1:{port}?from=monitor@example.org&to=oncall@example.org&format=html"
    incident = replace(MESSAGE.incidents[0], title="<b>a & b</b> is down")
    outcome = await AppriseUrl("oncall", url).send(
        dataclasses.replace(MESSAGE, incidents=[incident])
    )
    assert outcome.accepted, outcome.said
    (mail,) = inbox.mails
    assert str(mail["Subject"]) == "<b>a & b</b> is down"
    (part,) = (part for part in mail.walk() if part.get_content_type() == "text/html")
    text = part.get_payload(decode=True).decode()  # type: ignore[union-attr]
    assert "&lt;b&gt;a &amp; b&lt;/b&gt; is down<br/>" in text


async def test_a_server_that_accepts_late_gets_it_once(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apprise_url, "_LIMIT_S", 0.1)
    inbox, port = await start_server()
    inbox.accepts.clear()
    url = f"mailto://127.0.0.1:{port}?from=monitor@example.org&to=oncall@example.org"
    target = AppriseUrl("oncall", url)
    assert not (await target.send(MESSAGE)).accepted
    await until(lambda: inbox.mails)
    assert (await target.send(MESSAGE)).said == "mailto: the last attempt has not ended"
    inbox.accepts.set()
    async with asyncio.timeout(20):
        while not (await target.send(MESSAGE)).accepted:
            await asyncio.sleep(0.01)
    assert len(inbox.mails) == 1


async def test_mail_with_starttls_and_a_password(
    start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    inbox, port = await start_server(
        tls_context=context,
        require_starttls=True,
        authenticator=authenticate,
        auth_required=True,
    )
    options = "from=monitor@example.org&to=oncall@example.org&mode=starttls"
    good = f"mailtos://monitor:sesame@localhost:{port}?{options}"
    outcome = await AppriseUrl("oncall", good).send(MESSAGE)
    assert outcome.accepted, outcome.said
    assert inbox.encrypted == [True]
    assert inbox.users == ["monitor"]
    wrong = good.replace("sesame", "open-barley")
    outcome = await AppriseUrl("oncall", wrong).send(MESSAGE)
    assert not outcome.accepted
    assert "535" in outcome.said
    assert "barley" not in outcome.said
    assert len(inbox.mails) == 1


async def test_a_server_that_is_down_is_an_error_that_says_so() -> None:
    url = "mailto://127.0.0.1:9?from=monitor@example.org&to=oncall@example.org"
    outcome = await AppriseUrl("oncall", url).send(MESSAGE)
    assert not outcome.accepted
    assert "onnection refused" in outcome.said
