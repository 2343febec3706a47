"""The kind http says what a browser says: cookies, codings, charsets, proxies, and assertions."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from monitor.errors import SettingError
from monitor.probes.checking import Checks
from monitor.probes.checks import read_job
from monitor.probes.checks.http import curl_loop
from monitor.probes.checks.http.body import Body
from tests.ports import free_port
from tests.probes.attempts import check
from tests.probes.certificates import SOON, Certificates
from tests.probes.misbehaving import Misbehaving

served = pytest.mark.integration_test


@served
@pytest.mark.parametrize(
    ("path", "keys", "error"),
    [
        ("/cookie", {}, None),
        ("/cookie", {"headers": {"Cookie": "own=1"}}, None),
        ("/cookie", {"follow_redirects": False}, "bad-status: 302"),
        ("/coded/gzip", {"body_regexp": "^<html>"}, None),
        ("/coded/gzip/5", {}, "bad-answer: the gzip body breaks off"),
        ("/coded/gzip/30", {}, "bad-answer: the gzip body breaks off"),
        ("/coded/deflate/9", {}, "bad-answer: the deflate body breaks off"),
        ("/coded/UTF-8", {"body_regexp": "^<html>"}, None),
        ("/coded/aws-chunked", {}, None),
        ("/coded/br", {"body_regexp": "x"}, "body-mismatch: body_regexp does not match (Content-"),
        ("/coded/gzip/5", {"decode": False}, None),
        ("/coded/gzip", {"decode": False, "body_regexp": "<html>"}, "body-mismatch: "),
        ("/length-required", {"method": "POST"}, None),
        ("/length-required", {"method": "PUT"}, None),
        ("/json", {"json": "status == 'ok' && length(items) > `1`"}, None),
        ("/json", {"json": "status"}, "body-mismatch: json is not true"),
        ("/json", {"json": "length(status.none)"}, "body-mismatch: json is not true"),
        ("/json", {"json": "count > `9`"}, None),
        ("/ok", {"json": "status"}, "body-mismatch: the body is not JSON"),
        ("/ok", {"body_absent_regexp": "(?i)error"}, None),
        ("/ok", {"body_absent_regexp": "HELLO|hello"}, "body-mismatch: body_absent_regexp matches"),
        ("/json", {"header_regexps": {"x-served-by": r"^node-\d$"}}, None),
        ("/json", {"header_regexps": {"X-Served-By": "node-8"}}, "header-mismatch: X-Served-By"),
        ("/json", {"header_regexps": {"X-None": ""}}, "header-mismatch: X-None"),
        ("/marked/utf-16", {"body_regexp": "^grün$"}, None),
        ("/marked/utf-8", {"body_regexp": "^grün$"}, None),
        ("/marked/meta", {"body_regexp": "grün$"}, None),
        ("/marked/xml", {"body_regexp": "grün$"}, None),
        ("/charset/windows-874", {"body_regexp": "^[+]AGE-grรผn$"}, None),
        ("/charset/X-SJIS", {"body_regexp": "^[+]AGE-grﾃｼn$"}, None),
        ("/charset/utf-7", {"body_regexp": "^[+]AGE-grün$"}, None),
        ("/charset/punycode", {"body_regexp": "^[+]AGE-grün$"}, None),
        ("/charset/utf-32", {"body_regexp": "^[+]AGE-grün$"}, None),
        ("/charset/latin1", {"body_regexp": "^[+]AGE-grÃ¼n$"}, None),
        ("/events", {"stream": True, "header_regexps": {"Content-Type": "event-stream"}}, None),
        ("/events/none", {"stream": True}, "bad-answer: the answer ended without a body"),
        ("/status/503", {"stream": True}, "bad-status: 503"),
    ],
)
async def test_an_answer_has_its_result(
    server: Misbehaving, path: str, keys: dict[str, Any], error: str | None
) -> None:
    outcome = await check(server.url(path), timeout=30, **keys)
    assert outcome.error == error or (error is not None and outcome.error is not None)
    assert (outcome.error or "").startswith(error or "")
    if error is not None and "mismatch" in error:
        assert outcome.matched is False


@served
async def test_bodies_in_crumbs_are_whole_and_come_a_few_crumbs_a_turn(
    server: Misbehaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curl_loop, "_MOST_PIECES", 50)
    loop = asyncio.get_running_loop()
    taken = [0]
    write = Body.write

    def counted(body: Body, piece: bytes) -> int | None:
        if not taken[-1]:
            loop.call_soon(taken.append, 0)
        taken[-1] += 1
        return write(body, piece)

    monkeypatch.setattr(Body, "write", counted)
    checks = Checks(resolver_threads=2)
    keys: list[dict[str, object]] = [
        {"body_regexp": "^y{20000}last$"},
        {"body_regexp": "last$"},
        {"max_body_bytes": 9999},
    ]
    try:
        jobs = [
            read_job({"id": 1 + n, "url": server.url("/crumbs/20000"), "timeout": 60, **each})
            for n, each in enumerate(keys)
        ]
        outcomes = await asyncio.gather(*(checks.prepare(job)() for job in jobs))
    finally:
        await checks.close()
    assert [each.error for each in outcomes[:2]] == [None, None]
    assert (outcomes[2].error or "").startswith("body-too-large")
    # The loop's turns and those of the count may begin at different transfers.
    assert max(taken) <= 2 * 50


@served
async def test_cookies_of_one_attempt_are_not_sent_by_the_next(server: Misbehaving) -> None:
    for _ in range(2):
        before = len(server.requests)
        assert (await check(server.url("/cookie"))).up
        assert b"session" not in server.requests[before]
        assert b"\r\nCookie: session=7\r\n" in server.requests[-1]
    await check(server.url("/cookie"), headers={"Cookie": "own=1"})
    sent = server.requests[-1]
    assert sent.count(b"\r\nCookie:") == 1
    assert b"session=7" in sent
    assert b"own=1" in sent


@served
async def test_cookies_of_a_last_answer_are_sent_by_no_other_check(server: Misbehaving) -> None:
    checks = Checks(resolver_threads=2)
    try:
        # They share libcurl's handles.
        for number, path in enumerate(("/sets-cookie", "/ok", "/sets-cookie", "/status/500")):
            url = server.url(path)
            job = read_job({"id": number + 1, "url": url, "follow_redirects": number != 1})
            await checks.prepare(job)()
            assert b"\r\nCookie:" not in server.requests[-1]
    finally:
        await checks.close()


@served
async def test_a_post_without_a_body_says_so(server: Misbehaving) -> None:
    await check(server.url("/ok"), method="POST")
    assert b"\r\nContent-Length: 0\r\n" in server.requests[-1]
    assert b"Content-Type" not in server.requests[-1]
    await check(server.url("/ok"), method="GET")
    assert b"Content-Length" not in server.requests[-1]


@served
async def test_without_decoding_no_compression_is_asked_for(server: Misbehaving) -> None:
    await check(server.url("/ok"))
    assert b"\r\nAccept-Encoding: gzip, deflate\r\n" in server.requests[-1]
    await check(server.url("/ok"), decode=False)
    assert b"Accept-Encoding" not in server.requests[-1]


@contextmanager
def proxy(answer: bytes, *, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A proxy that gives this answer to every request, and closes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = listener.accept()
                with contextlib.suppress(OSError), plain:
                    plain.settimeout(10)
                    peer = tls.wrap_socket(plain, server_side=True) if tls else plain
                    with peer:
                        peer.recv(65536)
                        peer.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


ASKS = b"HTTP/1.1 407 Who?\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n"


@served
@pytest.mark.parametrize("scheme", ["http", "https", "ws", "wss"])
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (ASKS, "proxy: the proxy answered 407"),
        (b"HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n", "proxy: the proxy answered 502"),
        (b"", "proxy: the proxy closed the connection"),
        (b"SSH-2.0-x\r\n", "proxy: "),
        (None, "proxy: "),
    ],
)
async def test_a_proxy_that_fails_is_named(scheme: str, answer: bytes | None, error: str) -> None:
    with proxy(answer or b"") as port:
        place = f"http://127.0.0.1:{free_port() if answer is None else port}"
        outcome = await check(f"{scheme}://site.test/", proxy=place, timeout=30)
    assert outcome.error is not None
    if scheme == "http" and answer is not None and b"407" not in answer:
        # Such an answer may as well be the site's.
        assert outcome.error.partition(":")[0] in ("bad-status", "bad-answer")
    else:
        assert outcome.error.startswith(error)
    lost = await check(f"{scheme}://site.test/", proxy="http://nowhere.invalid:1", timeout=30)
    assert (lost.error or "").startswith("proxy: ")


@served
async def test_an_https_proxy_is_verified_as_the_site_is(certificates: Certificates) -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    with proxy(page, tls=certificates.context("good")) as port:
        keys: dict[str, Any] = {"proxy": f"https://localhost:{port}", "ip_version": "4"}
        assert (await check("http://site.test/", ca_file=certificates.file, **keys)).up
        assert (await check("http://site.test/", verify_tls=False, **keys)).up
        refused = await check("http://site.test/", **keys)
    assert (refused.error or "").startswith("proxy: TLS with the proxy failed")


@served
async def test_an_https_proxy_has_the_lowest_version_of_the_job(certificates: Certificates) -> None:
    context = certificates.context("good")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with proxy(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", tls=context) as port:
        keys: dict[str, Any] = {"proxy": f"https://localhost:{port}", "ip_version": "4"}
        keys["ca_file"] = certificates.file
        assert (await check("http://site.test/", **keys)).up
        old = await check("http://site.test/", tls_min_version="1.3", **keys)
    assert (old.error or "").startswith("proxy: TLS with the proxy failed")


@served
async def test_the_path_that_is_verified_counts_and_not_all_that_is_sent(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    context, old = certificates.with_an_expired_alternative()
    with closing(Misbehaving(tls=context)) as server:
        for url in (server.url("/ok", "localhost"), f"tls://localhost:{server.port}"):
            outcome = await check(url, ca_file=certificates.file, ip_version="4", timeout=30)
            assert outcome.error is None
            assert outcome.certificate_expires_at == SOON
            assert outcome.chain_expires_at == old


@served
async def test_tls_keys_are_the_same_for_http(certificates: Certificates, tmp_path: Path) -> None:
    context = certificates.context("wrong-name")
    context.verify_mode = ssl.CERT_REQUIRED
    certificates.authority.configure_trust(context)
    both = tmp_path / "client.pem"
    certificates.authority.issue_cert("me").private_key_and_cert_chain_pem.write_to_path(str(both))
    keys: dict[str, Any] = {"ca_file": certificates.file, "ip_version": "4", "timeout": 30}
    keys["server_name"] = "other.example"
    with closing(Misbehaving(tls=context)) as server:
        url = server.url("/ok", "localhost")
        assert (await check(url, client_certificate=str(both), **keys)).error is None
        assert f"\r\nHost: localhost:{server.port}\r\n".encode() in server.requests[-1]
        without = await check(url, **keys)
        assert not without.up
    context = certificates.context("good")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    keys["server_name"] = None
    with closing(Misbehaving(tls=context)) as server:
        old = await check(server.url("/ok", "localhost"), tls_min_version="1.3", **keys)
        assert (old.error or "").startswith("tls: ")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"json": "a["}, "json: not a JMESPath expression"),
        ({"json": "(" * 5000}, "json: not a JMESPath expression: nested too deeply"),
        ({"header_regexps": {"A b": "x"}}, "header_regexps: 'A b' is not a header's name"),
        ({"header_regexps": {"A": "("}}, "header_regexps.A: not a regular expression"),
        ({"body_absent_regexp": "("}, "body_absent_regexp: not a regular expression"),
        ({"stream": True, "json": "a"}, "json: needs the whole body"),
        ({"stream": True, "method": "HEAD"}, "stream: the answer to HEAD has no body"),
        ({"body_regexp": "x", "method": "HEAD"}, "body_regexp: the answer to HEAD has no body"),
        ({"json": "x", "method": "HEAD"}, "json: the answer to HEAD has no body"),
        ({"body": "x", "method": "HEAD"}, "body: a request with HEAD has no body"),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "headers.x-a: is the same header as X-A"),
        ({"headers": {"Content-Length": "5"}}, "headers.Content-Length: the body has 0 bytes"),
        ({"headers": {"content-length": "1"}, "body": "ü"}, "the body has 2 bytes"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "Transfer-Encoding: there is no body"),
        ({"headers": {"Transfer-Encoding": "gzip"}, "body": "x"}, "only chunked can be sent"),
        ({"headers": {"A": "x\x7f"}}, "headers.A: has a control character"),
        ({"kind": "websocket", "url": "ws://x/", "headers": {"Content-Length": "2"}}, "0 bytes"),
        (
            {"kind": "websocket", "url": "ws://x/", "headers": {"Sec-WebSocket-Protocol": "a,"}},
            "headers.Sec-WebSocket-Protocol: '' is not a subprotocol",
        ),
        ({"certificate_days": 0}, "certificate_days"),
        ({"ca_file": "/no\nwhere"}, "ca_file: cannot read '/no\\nwhere': No such file"),
        ({"server_name": "/x"}, "server_name: '/x' is not a host name"),
        ({"proxy": "http://u:secret@p:1/x"}, "proxy: must be SCHEME://HOST:PORT and nothing more"),
        ({"kind": "websocket", "url": "ws://x/", "proxy": "http://u:secret@p?x"}, "proxy: must be"),
        ({"kind": "websocket", "url": "ws://x/", "certificate_days": 3}, "does not speak TLS"),
        ({"kind": "websocket", "url": "ws://x/", "proxy": "socks5://u:secret@p"}, "proxy: must be"),
        ({"kind": "websocket", "url": "ws://x/", "subprotocol": "a b"}, "subprotocol: "),
    ],
)
def test_what_makes_no_sense_is_named(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_job({"id": 1, "url": "http://x/", **keys})
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


@served
async def test_http_2_without_tls_is_spoken_from_the_first_byte() -> None:
    """A server that knows nothing but HTTP/2 gets its preface."""
    received = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.read(14))
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        outcome = await check(f"http://127.0.0.1:{port}/", http_version="2", timeout=30)
    assert received == [b"PRI * HTTP/2.0"]
    assert not outcome.up
