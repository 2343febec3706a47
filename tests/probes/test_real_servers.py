"""Banners, dialogues, STARTTLS and names against the servers that Debian has."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.probes.attempts import check
from tests.probes.certificates import SOON, Certificates
from tests.servers.spoken import SERVERS, running

pytestmark = pytest.mark.integration_test

Port = Callable[[str], int]


@pytest.fixture(scope="module")
def port(certificates: Certificates, program: Callable[..., str]) -> Iterator[Port]:
    """Return a function that gives the port of a server, which runs until the module's end."""
    until = datetime.datetime.fromtimestamp(SOON, datetime.UTC)
    issued = certificates.authority.issue_cert("localhost", "127.0.0.1", not_after=until)
    pem = issued.private_key_and_cert_chain_pem.bytes()
    ports: dict[str, int] = {}
    with ExitStack() as stack:

        def start(name: str) -> int:
            if name not in ports:
                if name in SERVERS:
                    package, executable, _ = SERVERS[name]
                    program(executable, f"/usr/sbin/{executable}", package=package)
                ports[name] = stack.enter_context(running(name, pem))
            return ports[name]

        yield start


@pytest.mark.parametrize(
    ("server", "keys"),
    [
        ("sshd", {"body_regexp": r"^SSH-2\.0-OpenSSH_"}),
        ("smtp", {"body_regexp": "^220 mail.test ESMTP"}),
        ("imap", {"body_regexp": r"^\* OK "}),
        ("pop3", {"body_regexp": r"^\+OK "}),
        ("ftp", {"body_regexp": "^220 "}),
    ],
)
async def test_a_banner_is_read(port: Port, server: str, keys: dict[str, Any]) -> None:
    outcome = await check(f"tcp://127.0.0.1:{port(server)}", **keys)
    assert (outcome.up, outcome.matched) == (True, True), outcome.error


async def test_another_banner_is_down(port: Port) -> None:
    keys = {"body_regexp": "^HTTP/", "timeout": 3}
    outcome = await check(f"tcp://127.0.0.1:{port('sshd')}", **keys)
    assert (outcome.error or "").startswith("body-mismatch: ")
    assert outcome.response_time is None


@pytest.mark.parametrize(
    ("server", "dialogue"),
    [
        ("redis", [{"send": "PING\r\n"}, {"expect": r"^\+PONG"}]),
        (
            "smtp",
            [
                {"expect": "^220 "},
                {"send": "EHLO probe.test\r\n"},
                {"expect": "^250-STARTTLS"},
                {"send": "QUIT\r\n"},
                {"expect": "^221 "},
            ],
        ),
        ("imap", [{"expect": r"^\* OK"}, {"send": "a NOOP\r\n"}, {"expect": "^a OK "}]),
        ("pop3", [{"expect": r"^\+OK"}, {"send": "CAPA\r\n"}, {"expect": "^STLS"}]),
        ("ftp", [{"expect": "^220 "}, {"send": "FEAT\r\n"}, {"expect": "AUTH TLS"}]),
    ],
)
async def test_a_dialogue_is_held(port: Port, server: str, dialogue: list[dict[str, str]]) -> None:
    outcome = await check(f"tcp://127.0.0.1:{port(server)}", dialogue=dialogue)
    assert outcome.up, outcome.error
    failed = await check(
        f"tcp://127.0.0.1:{port(server)}",
        dialogue=[*dialogue[:-1], {"expect": "^never"}],
        timeout=2,
    )
    assert (failed.error or "").partition(":")[0] in ("body-mismatch", "timeout")


@pytest.mark.parametrize("server", ["smtp", "imap", "pop3", "ftp", "ldap", "postgres"])
@pytest.mark.parametrize("kind", ["tls", "tcp"])
async def test_starttls_leads_to_a_certificate_that_is_verified(
    port: Port, server: str, kind: str, certificates: Certificates
) -> None:
    url = f"{kind}://localhost:{port(server)}"
    keys = {"starttls": server, "ca_file": certificates.file, "ip_version": 4}
    outcome = await check(url, **keys)
    assert outcome.up, outcome.error
    assert outcome.certificate_expires_at == SOON
    assert outcome.phases.tls > 0
    unknown = await check(url, starttls=server, ip_version=4)
    assert (unknown.error or "").startswith("bad-certificate: ")
    wrong = await check(url, **keys, server_name="other.example")
    assert (wrong.error or "").startswith("bad-certificate: ")


async def test_a_dialogue_goes_on_after_starttls(port: Port, certificates: Certificates) -> None:
    outcome = await check(
        f"tcp://127.0.0.1:{port('smtp')}",
        starttls="smtp",
        ca_file=certificates.file,
        dialogue=[{"send": "EHLO probe.test\r\n"}, {"expect": "^250-SIZE"}],
    )
    assert outcome.up, outcome.error


async def test_redis_over_tls_answers(port: Port, certificates: Certificates) -> None:
    outcome = await check(
        f"tcp://127.0.0.1:{port('redis-tls')}",
        tls=True,
        ca_file=certificates.file,
        dialogue=[{"send": "PING\r\n"}, {"expect": r"^\+PONG"}],
    )
    assert outcome.up, outcome.error
    plain = await check(f"tcp://127.0.0.1:{port('redis')}", tls=True, timeout=3)
    assert not plain.up


async def test_a_server_without_starttls_is_down(port: Port) -> None:
    outcome = await check(f"tls://127.0.0.1:{port('redis')}", starttls="smtp", timeout=2)
    assert not outcome.up


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize(
    ("question", "keys", "error"),
    [
        ("site.test", {"expected": [r"^192\.0\.2\.1$"]}, None),
        ("site.test?type=MX", {"expected": ["^10 mail"]}, None),
        ("_dmarc.site.test?type=TXT", {"expected": ["DMARC1"]}, None),
        ("none.site.test", {}, "bad-rcode: NXDOMAIN"),
        ("none.site.test", {"expected_rcode": "NXDOMAIN"}, None),
        ("elsewhere.test", {}, "bad-rcode: REFUSED"),
        ("site.test", {"expected": ["^198"]}, "body-mismatch: no record matches; 192.0.2.1"),
    ],
)
async def test_bind9_is_asked(
    port: Port, transport: str, question: str, keys: dict[str, Any], error: str | None
) -> None:
    outcome = await check(f"dns://127.0.0.1:{port('dns')}/{question}", transport=transport, **keys)
    assert outcome.error == error
