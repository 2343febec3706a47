"""The kind tls against real servers: their certificates, and those without TLS."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from monitor.commands.command_line import run
from monitor.errors import SettingError
from monitor.probes.checks import read_job
from monitor.transport.certificate import Certificate
from tests.probes.attempts import check, phases
from tests.probes.certificates import PAST, SOON, Certificates
from tests.probes.misbehaving import Misbehaving

served = pytest.mark.integration_test

AUTHORITY = trustme.CA()


@asynccontextmanager
async def tls_server(context: ssl.SSLContext) -> AsyncIterator[str]:
    server = Misbehaving(tls=context)
    try:
        yield f"tls://localhost:{server.port}"
    finally:
        # The server waits for its clients' ends, which are in this loop.
        await asyncio.to_thread(server.close)


@contextmanager
def plain_server(greeting: bytes) -> Iterator[str]:
    """Accept connections, say ``greeting``, and say nothing more."""
    ended = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def talk() -> None:
        with contextlib.suppress(OSError), listener.accept()[0] as connection:
            connection.sendall(greeting)
            ended.wait(10)

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        yield f"tls://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        ended.set()
        thread.join()
        listener.close()


@served
@pytest.mark.parametrize(
    ("kind", "error", "expires_at"),
    [
        ("good", None, SOON),
        ("chain", None, SOON),
        ("expired", "bad-certificate: certificate has expired", PAST),
        ("wrong-name", "bad-certificate: Hostname mismatch", SOON),
        ("stranger", "bad-certificate: unable to get local issuer certificate", SOON),
    ],
)
async def test_a_certificate_is_verified_and_its_expiry_is_shown(
    certificates: Certificates, kind: str, error: str | None, expires_at: float
) -> None:
    async with tls_server(certificates.context(kind)) as url:
        outcome = await check(url, ca_file=certificates.file, ip_version="4")
        unverified = await check(url, verify_tls=False, ip_version="4")
    assert (outcome.error or "").startswith(error or "")
    assert outcome.up == (error is None)
    assert outcome.certificate_expires_at == expires_at
    assert outcome.phases.tls > 0
    assert (outcome.response_time is None) == (error is not None)
    assert unverified.up
    assert unverified.certificate_expires_at == expires_at
    assert unverified.response_time == pytest.approx(sum(phases(unverified)))


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "tls": ("tls", {}),
    "tcp": ("tcp", {"tls": True}),
    "http": ("https", {"expected_status": [404]}),
    # What is behind TLS is not theirs.
    "websocket": ("wss", {}),
    "grpc": ("grpcs", {}),
}


@served
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "host", "verified"),
    [
        ("localhost", "localhost", True),
        # The full name, with which neither SNI nor certificates end.
        ("localhost", "localhost.", True),
        # The subject does not count where there are other names.
        ("127.0.0.1", "localhost", False),
        ("127.0.0.1", "127.0.0.1", True),
    ],
)
async def test_every_kind_trusts_the_same(
    certificates: Certificates, kind: str, name: str, host: str, verified: bool
) -> None:
    scheme, keys = KINDS[kind]
    authority = Path(certificates.file).with_name("between.pem")
    context = certificates.under(name, subject="localhost", authority=authority)
    async with tls_server(context) as url:
        place = url.replace("tls://localhost", f"{scheme}://{host}")
        outcome = await check(place, ca_file=str(authority), ip_version="4", **keys)
    error = outcome.error or ""
    assert error.startswith("bad-certificate: ") == (not verified)
    assert outcome.up == verified or kind in ("websocket", "grpc")
    assert outcome.certificate_expires_at is not None


@served
async def test_the_name_to_verify_may_be_another_than_the_host(certificates: Certificates) -> None:
    async with tls_server(certificates.context("wrong-name")) as url:
        keys = {"ca_file": certificates.file, "ip_version": "4"}
        assert (await check(url, server_name="other.example", **keys)).up
        assert (await check(url, server_name="third.example", **keys)).error is not None


@served
@pytest.mark.parametrize(
    ("greeting", "error"),
    [
        (b"220 mail.example.org ESMTP\r\n", "tls: WRONG_VERSION_NUMBER"),
        (b"", "timeout: 0.5 s ran out"),
    ],
)
async def test_a_port_without_tls_is_down(greeting: bytes, error: str) -> None:
    with plain_server(greeting) as url:
        outcome = await check(url, timeout=0.5 if error.startswith("timeout") else 10)
    assert outcome.error == error
    assert outcome.response_time is None
    assert outcome.certificate_expires_at is None


@served
async def test_lines_of_a_reply_of_ftp_may_be_anything() -> None:
    with plain_server(b"220-Welcome\r\nto our\r\n 220 mirrors\r\n220 ready\r\n500 no\r\n") as url:
        outcome = await check(url, starttls="ftp")
    assert outcome.error == "tls: the server refuses STARTTLS: b'500 no'"


@served
async def test_the_lowest_version_is_kept_to(certificates: Certificates) -> None:
    context = certificates.context("good")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with tls_server(context) as url:
        keys = {"ca_file": certificates.file, "ip_version": "4"}
        assert (await check(url, tls_min_version="1.2", **keys)).up
        newer = await check(url, tls_min_version="1.3", **keys)
    assert newer.error is not None
    assert newer.error.startswith("tls: ")


@served
async def test_a_server_that_asks_for_a_certificate_gets_it(
    certificates: Certificates, tmp_path: Path
) -> None:
    context = certificates.context("good")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    certificates.authority.configure_trust(context)
    client = certificates.authority.issue_cert("client.example")
    both, key = tmp_path / "both.pem", tmp_path / "key.pem"
    client.private_key_and_cert_chain_pem.write_to_path(str(both))
    client.private_key_pem.write_to_path(str(key))
    keys: dict[str, Any] = {"ca_file": certificates.file, "ip_version": "4"}
    async with tls_server(context) as url:
        assert (await check(url, client_certificate=str(both), **keys)).up
        assert (await check(url, client_certificate=str(both), client_key=str(key), **keys)).up
        without = await check(url, **keys)
    assert without.error is not None
    assert without.error.startswith("tls: ")


@served
async def test_a_certificate_that_is_missing_is_a_failure_of_tls_in_all_kinds(
    certificates: Certificates,
) -> None:
    """With TLS 1.3 the server looks for the client's certificate only after the handshake."""
    context = certificates.context("good")
    context.verify_mode = ssl.CERT_REQUIRED
    certificates.authority.configure_trust(context)
    listener = socket.create_server(("127.0.0.1", 0))
    tried = ("https", "wss", "grpcs", "tcp")

    def refuse() -> None:
        for _ in tried:
            connection = listener.accept()[0]
            # Closed with the request unread, the alert might get lost.
            with connection.dup() as kept, contextlib.suppress(OSError):
                with contextlib.suppress(ssl.SSLError):
                    context.wrap_socket(connection, server_side=True)
                while kept.recv(4096):
                    pass

    thread = threading.Thread(target=refuse)
    thread.start()
    place = f"localhost:{listener.getsockname()[1]}"
    keys: dict[str, Any] = {"ca_file": certificates.file, "ip_version": "4", "timeout": 30}
    own: dict[str, Any] = {"tcp": {"tls": True, "body_regexp": "x"}}
    found = {
        scheme: (await check(f"{scheme}://{place}", **keys, **own.get(scheme, {}))).error or ""
        for scheme in tried
    }
    await asyncio.to_thread(thread.join)
    listener.close()
    assert all(error.startswith("tls: ") for error in found.values()), found


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"url": "tls://x"}, "url: 'tls://x' has no port"),
        ({"url": "tls://x:1/path"}, "url: must be tls://host:port and nothing more"),
        ({"url": "https://x:1"}, "must start with tls://"),
        ({"server_name": "a..b"}, "server_name: 'a..b' is not a host name"),
        ({"server_name": ""}, "server_name: '' is not a host name"),
        ({"tls_min_version": "1.0"}, "tls_min_version: expected one of 1.2, 1.3"),
        ({"client_key": "/k.pem"}, "client_key: needs client_certificate"),
        ({"client_certificate": "/no.pem"}, "client_certificate: cannot read /no.pem"),
        ({"client_certificate": __file__}, "client_certificate: no PEM certificate"),
        ({"ca_file": __file__}, f"ca_file: {__file__} holds no PEM certificates"),
        ({"body_regexp": "x"}, "body_regexp: unknown key for kind tls; known by "),
    ],
)
def test_what_makes_no_sense_is_named(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_job({"id": 1, "kind": "tls", "url": "tls://x:1", **keys})
    assert said in str(caught.value)


@served
def test_probe_shows_the_certificate_and_exits_by_the_state(
    certificates: Certificates, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(Misbehaving(tls=certificates.context("expired"))) as server:
        url = f"tls://localhost:{server.port}"
        assert run(["probe", url, "--ca-file", certificates.file, "-4"]) == 1
        shown = capsys.readouterr().out
        assert run(["probe", url, "--insecure", "--json", "-4"]) == 0
        result = json.loads(capsys.readouterr().out)
    assert "bad-certificate: certificate has expired" in shown
    assert "certificate expires 2020-01-01" in shown
    assert (result["kind"], result["certificate_expires_at"]) == ("tls", PAST)


# Times on both sides of 2050, from which on certificates write the year with four digits.
@given(st.integers(-599_616_000, 253_402_300_799))
def test_the_expiry_of_any_certificate_is_read(at: int) -> None:
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    certificate = AUTHORITY.issue_cert(
        "x.example",
        not_before=datetime.datetime(1950, 1, 1, tzinfo=datetime.UTC),
        not_after=epoch + datetime.timedelta(seconds=at),
    )
    pem = certificate.cert_chain_pems[0].bytes().decode()
    read = Certificate.read(ssl.PEM_cert_to_DER_cert(pem))
    assert read is not None
    assert read.expires_at == at


@given(st.binary(max_size=60))
def test_what_is_no_certificate_has_no_expiry(data: bytes) -> None:
    assert Certificate.read(data) is None


@served
async def test_a_server_that_closes_in_the_handshake_is_a_reset_in_all_kinds() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (await reader.read(3000)).startswith(b"CONNECT"):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await reader.read(3000)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    attempts: list[tuple[str, dict[str, Any]]] = [
        *((f"{scheme}://{place}", {}) for scheme in ("https", "wss", "tls", "grpcs")),
        (f"tcp://{place}", {"tls": True}),
        ("wss://site.test/", {"proxy": f"http://{place}"}),
        ("https://site.test/", {"proxy": f"http://{place}"}),
    ]
    try:
        found = {(url, *keys): (await check(url, **keys)).error for url, keys in attempts}
    finally:
        server.close()
        await server.wait_closed()
    assert set(found.values()) == {"reset: the connection was closed"}, found
