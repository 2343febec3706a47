"""Every kind of check against servers that misbehave, over real sockets."""

from __future__ import annotations

import asyncio
import base64
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monitor.probes.checking import Checks
from monitor.probes.checks.http import HttpJob
from tests.ports import free_port
from tests.probes.attempts import check, phases
from tests.probes.certificates import PAST, SOON, Certificates
from tests.probes.misbehaving import Misbehaving
from tests.waiting import until

pytestmark = pytest.mark.integration_test

# A fatal alert in its record, and how long a post-quantum key in a ClientHello is.
_HANDSHAKE_FAILURE = b"\x15\x03\x03\x00\x02\x02\x28"
_X25519MLKEM768_BYTES = 1216


async def test_a_page_is_up_and_its_phases_sum_to_the_response_time(server: Misbehaving) -> None:
    outcome = await check(server.url("/ok", "localhost"))
    assert (outcome.up, outcome.status, outcome.matched) == (True, 200, True)
    assert outcome.response_time == pytest.approx(sum(phases(outcome)))
    assert all(value >= 0 for value in phases(outcome))
    assert outcome.phases.connect > 0
    assert outcome.phases.tls == 0
    assert outcome.response_time is not None
    assert outcome.duration >= outcome.response_time - 0.002


@pytest.mark.parametrize(
    ("path", "fields", "error", "status"),
    [
        ("/status/503", {}, "bad-status: 503", 503),
        ("/status/503", {"expected_status": ["500-599"]}, None, 503),
        ("/redirect/3", {}, None, 200),
        ("/redirect/3", {"max_redirects": 3}, None, 200),
        ("/redirect/3", {"max_redirects": 2}, "too-many-redirects: more than 2", 302),
        ("/redirect/3", {"follow_redirects": False}, "bad-status: 302", 302),
        ("/see/302/file:///etc/passwd", {}, "bad-redirect: ", 302),
        ("/see/302/", {}, "bad-status: 302", 302),
        ("/leads/lies", {}, None, 200),
        ("/leads/breaks-off", {}, None, 200),
        ("/leads/long", {}, None, 200),
        ("/leads/never-ends", {}, None, 200),
        ("/leads/lies", {"follow_redirects": False}, "bad-answer: ", 302),
        ("/cut", {}, "reset: the connection was closed in the header", 200),
        ("/ok", {"body_regexp": "h[aeiou]llo"}, None, 200),
        ("/ok", {"body_regexp": "goodbye"}, "body-mismatch: ", 200),
        ("/ok", {"max_body_bytes": 10}, "body-too-large: ", 200),
        ("/gzip", {"body_regexp": "^<html>hello"}, None, 200),
        ("/latin1", {"body_regexp": "^grün$"}, None, 200),
        ("/bomb", {}, "body-too-large: longer than 1048576 bytes", 200),
        ("/endless", {}, "body-too-large: ", 200),
        ("/broken-gzip", {}, "bad-answer: ", 200),
        ("/garbage", {}, "bad-answer: ", None),
        ("/empty", {}, "bad-answer: ", None),
        ("/headers", {}, "bad-answer: ", None),
        ("/reset", {}, "reset: ", 200),
        ("/short", {}, "bad-answer: ", 200),
        ("/silent", {"timeout": 0.3}, "timeout: 0.3 s ran out", None),
        ("/drip", {"timeout": 2}, "timeout: 2 s ran out", 200),
        ("/ok", {"http_version": "2"}, "bad-answer: not HTTP/2", None),
        ("/nowhere", {"method": "HEAD", "expected_status": [404]}, None, 404),
    ],
)
async def test_what_a_server_does_has_its_result(
    server: Misbehaving, path: str, fields: dict[str, Any], error: str | None, status: int | None
) -> None:
    outcome = await check(server.url(path), **fields)
    if error is None:
        assert outcome.error is None
    else:
        assert outcome.error is not None
        assert outcome.error.startswith(error)
    if path not in ("/headers", "/garbage"):
        assert outcome.status == status
    whole = error is None or error.startswith(("bad-status", "body-mismatch"))
    assert (outcome.response_time is not None) == whole


async def test_phases_are_summed_over_all_redirects(server: Misbehaving) -> None:
    before = len(server.requests)
    outcome = await check(server.url("/redirect/5"))
    assert len(server.requests) - before == 6
    assert outcome.response_time == pytest.approx(sum(phases(outcome)))


async def test_method_headers_and_body_are_sent_and_the_password_is_not_shown(
    server: Misbehaving,
) -> None:
    url = server.url("/ok").replace("//", "//me:p%40ss@")
    outcome = await check(url, method="POST", headers={"X-One": "1", "X-Empty": ""}, body="data")
    assert outcome.up
    sent = server.requests[-1]
    assert sent.startswith(b"POST /ok HTTP/1.1\r\n")
    assert b"\r\nX-One: 1\r\n" in sent
    assert b"\r\nX-Empty:" in sent
    assert b"\r\nUser-Agent: recodex-monitor/" in sent
    assert b"\r\nAuthorization: Basic bWU6cEBzcw==\r\n" in sent
    assert sent.endswith(b"\r\n\r\ndata")


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/ok/grün", b"GET /ok/gr%C3%BCn HTTP/1.1"),
        ("/ok?q=日本", b"GET /ok?q=%E6%97%A5%E6%9C%AC HTTP/1.1"),
        ("/ok/a%20b%FF", b"GET /ok/a%20b%FF HTTP/1.1"),
        ("/odd-redirect", b"GET /ok/gr%FCn HTTP/1.1"),
    ],
)
async def test_what_is_not_ascii_in_a_url_is_percent_encoded(
    server: Misbehaving, path: str, sent: bytes
) -> None:
    outcome = await check(server.url(path))
    assert outcome.error in (None, "bad-status: 404")
    assert server.requests[-1].startswith(sent)


async def test_credentials_that_are_not_ascii_are_sent_in_utf_8(server: Misbehaving) -> None:
    url = server.url("/ok").replace("//", "//jürgen:p%C3%A4ss@")
    assert (await check(url)).up
    credentials = base64.b64encode("jürgen:päss".encode())
    assert b"\r\nAuthorization: Basic " + credentials in server.requests[-1]
    proxy = f"http://jürgen:päss@127.0.0.1:{server.port}"
    outcome = await check("http://nowhere.invalid/", proxy=proxy, expected_status=[404])
    assert outcome.up
    assert b"\r\nProxy-Authorization: Basic " + credentials in server.requests[-1]


async def test_a_charset_that_is_no_name_is_ignored(server: Misbehaving) -> None:
    outcome = await check(server.url("/odd-charset"), body_regexp="this is the page")
    assert (outcome.error, outcome.matched) == (None, True)


async def test_a_proxy_is_used_and_the_environments_is_not(
    server: Misbehaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert (await check(server.url("/ok"))).up
    proxy = f"http://127.0.0.1:{server.port}"
    # the server takes the absolute form for a path that it does not know
    assert (await check("http://nowhere.invalid/", proxy=proxy, expected_status=[404])).up
    assert server.requests[-1].startswith(b"GET http://nowhere.invalid/ HTTP/1.1")
    lost = await check("http://nowhere.invalid/", proxy="http://also-nowhere.invalid:80")
    assert lost.error is not None
    assert lost.error.startswith("proxy: no-such-host")


@pytest.mark.parametrize("scheme", ["http", "tcp", "ws"])
async def test_nobody_there_is_refused_or_no_such_host(scheme: str) -> None:
    port = free_port()
    outcome = await check(f"{scheme}://127.0.0.1:{port}")
    assert outcome.error == "refused: Connection refused"
    assert outcome.response_time is None
    outcome = await check(f"{scheme}://no-such-host.invalid:80")
    assert outcome.error is not None
    assert outcome.error.startswith(("no-such-host: ", "resolve-failed: "))


async def test_the_ip_version_is_kept_to(server: Misbehaving) -> None:
    assert (await check(server.url("/ok", "localhost"), ip_version="4")).up
    outcome = await check(server.url("/ok"), ip_version="6")
    assert outcome.error == "no-such-host: 127.0.0.1 is not an IPv6 address"
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        return
    with listener:
        outcome = await check(f"tcp://[::1]:{listener.getsockname()[1]}", ip_version="6")
        assert outcome.up


async def test_a_catastrophic_expression_ends_with_the_timeout_and_the_loop_goes_on(
    server: Misbehaving,
) -> None:
    checks = Checks(resolver_threads=2)
    bad = HttpJob(id=1, url=server.url("/text/40"), body_regexp="(a+)+$", timeout=3)
    good = HttpJob(id=2, url=server.url("/ok"), body_regexp="hello", timeout=60)
    attempts = [checks.prepare(bad), checks.prepare(good)]
    for _ in range(2):
        # The good one's match waits behind the bad one's, and must not wait for its timeout.
        running = [attempt() for attempt in attempts]
        ended = [(await attempt).error for attempt in asyncio.as_completed(running)]
        assert ended == [None, "timeout: body_regexp takes too long"]
    await checks.close()


@pytest.mark.parametrize(
    ("kind", "error", "expiry"),
    [
        ("good", None, SOON),
        ("chain", None, SOON),
        ("expired", "bad-certificate: ", PAST),
        ("wrong-name", "bad-certificate: ", SOON),
        ("stranger", "bad-certificate: ", SOON),
    ],
)
async def test_certificates_are_verified_and_their_expiry_is_told(
    certificates: Certificates, kind: str, error: str | None, expiry: float
) -> None:
    server = Misbehaving(tls=certificates.context(kind))
    try:
        outcome = await check(server.url("/ok", "localhost"), ca_file=certificates.file)
        assert outcome.certificate_expires_at == expiry
        if error is None:
            assert outcome.error is None
            assert outcome.phases.tls > 0
        else:
            assert outcome.error is not None
            assert outcome.error.startswith(error)
            assert server.requests == []
        trusting = await check(server.url("/ok", "localhost"), verify_tls=False)
        assert trusting.up
        assert trusting.certificate_expires_at == expiry
    finally:
        server.close()


async def test_a_certificate_on_the_way_counts_too(certificates: Certificates) -> None:
    expired = Misbehaving(tls=certificates.context("expired"))
    good = Misbehaving(tls=certificates.context("good"))
    try:
        outcome = await check(expired.url(f"/see/302/{good.url('/ok')}"), verify_tls=False)
        assert outcome.up
        assert outcome.certificate_expires_at == PAST
    finally:
        expired.close()
        good.close()


async def test_tls_with_a_plain_server_is_no_tls(server: Misbehaving) -> None:
    outcome = await check(server.url("/ok").replace("http:", "https:"), timeout=5)
    assert outcome.error is not None
    assert outcome.error.partition(":")[0] in ("tls", "reset", "timeout", "bad-answer")


async def test_http_2_is_spoken(
    certificates: Certificates, program: Callable[..., str], tmp_path: Path
) -> None:
    nginx = program("nginx", "/usr/sbin/nginx", package="nginx-light")
    certificate = certificates.authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    port = free_port()
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; pid {tmp_path}/pid; error_log {tmp_path}/log; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {tmp_path}; proxy_temp_path {tmp_path};"
        f" fastcgi_temp_path {tmp_path}; uwsgi_temp_path {tmp_path}; scgi_temp_path {tmp_path};\n"
        f" server {{ listen 127.0.0.1:{port} ssl http2; ssl_certificate {tmp_path}/both.pem;"
        f" ssl_certificate_key {tmp_path}/both.pem; return 200 'over two'; }} }}\n"
    )
    command = [nginx, "-c", str(tmp_path / "nginx.conf")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            with socket.socket() as probe:
                await until(lambda: probe.connect_ex(("127.0.0.1", port)) == 0)
            outcome = await check(
                f"https://localhost:{port}/",
                ca_file=certificates.file,
                http_version="2",
                body_regexp="two",
                ip_version="4",
            )
            assert outcome.error is None
        finally:
            process.terminate()


async def test_a_slow_resolver_holds_up_nobody_else(
    server: Misbehaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attempts that wait for names leave those with addresses alone, within their timeouts."""
    from monitor.probes import resolver

    hang = threading.Event()
    original = resolver._look_up

    def slow(host: str, family: int) -> list[str]:
        # stands for a name server that does not answer: no real one can be made to hang here
        hang.wait(60)
        return original(host, family)

    monkeypatch.setattr(resolver, "_look_up", slow)
    checks = Checks(resolver_threads=4)
    lost = [
        checks.prepare(HttpJob(id=number, url="http://slow.example/", timeout=timeout))
        for number, timeout in enumerate([1, 60, 60, 60, 60, 60, 60, 1], start=1)
    ]
    good = checks.prepare(HttpJob(id=20, url=server.url("/ok"), timeout=60))
    first, *patient, last = [asyncio.create_task(attempt()) for attempt in lost]
    assert (await good()).up
    # One has a thread, the other waits for one.
    assert {outcome.error for outcome in await asyncio.gather(first, last)} == {
        "timeout: 1 s ran out"
    }
    assert not any(task.done() for task in patient)
    for task in patient:
        task.cancel()
    await asyncio.wait(patient)
    hang.set()
    await checks.close()


async def test_a_server_that_wants_another_group_of_tls_is_asked_with_all() -> None:
    hellos: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hellos.append(await reader.read(8192))
        writer.write(_HANDSHAKE_FAILURE)
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        checks = Checks(resolver_threads=1)
        attempt = checks.prepare(HttpJob(id=1, url=url))
        first = await attempt()
        tries = len(hellos)
        second = await attempt()
        await checks.close()
    for outcome in (first, second):
        assert outcome.error is not None
        assert outcome.error.startswith("tls: ")
    # The next attempts offer all at once.
    assert len(hellos) == tries + 1
    if tries == 2:
        assert [len(hello) > _X25519MLKEM768_BYTES for hello in hellos] == [False, True, True]
