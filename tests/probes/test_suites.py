"""Checks say what the WHATWG's URL tests say, and of the replies of curl's tests what curl says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pycurl
import pytest

from monitor.errors import SettingError
from monitor.probes.checking import Checks, check_job
from monitor.probes.checks import KINDS, error_words, read_job
from monitor.probes.urls import Url, joined_url, parse_url
from tests.servers.suites import curl_replies, url_cases

pytestmark = pytest.mark.integration_test

WEB = ("http", "https", "ws", "wss")
OTHERS = [scheme for kind in KINDS.values() for scheme in kind.job.schemes if scheme not in WEB]

# What is known to differ, by reason.
_URLS = {
    "no name of the DNS has an empty label": {"http://./", "http://../", "http://foo.09.."},
    # https://github.com/whatwg/url/pull/914: sites have such names, and browsers open them.
    "the standard takes a name in ASCII as it is since, whatever its punycode": {
        *(f"http://a.b.c.{prefix}--pokxncvks" for prefix in ("xn", "XN", "Xn")),
        *(f"http://10.0.0.{prefix}--pokxncvks" for prefix in ("xn", "XN", "xN")),
        "https://xn--/",
    },
    "the standard encodes ^ since": {"wss://host/ !\"$%&'()*+,-./:;<=>@[\\]^_`{|}~"},
}
_REPLIES = {
    "libcurl takes a header that has no end": {
        *(f"test{number}-data" for number in (1513, 1539, 1591)),
    },
}
# libcurl refuses what it was built without; a check shows it as it is.
_CODINGS = {b"Content-Encoding: zstd": "zstd", b"Content-Encoding: br": "brotli"}


def known(found: dict[str, set[str]]) -> set[str]:
    return set().union(*found.values())


def parsed(url: str, *schemes: str) -> Url | None:
    try:
        return parse_url(url, schemes)
    except SettingError:
        return None


def href(url: Url) -> str:
    password = f":{url.password}" if url.password else ""
    credentials = f"{url.user}{password}@" if url.user or url.password else ""
    query = f"?{url.query}" if url.query else ""
    return f"{url.scheme}://{credentials}{url.netloc}{url.path}{query}"


def scheme_of(url: str) -> str:
    text = url.strip("".join(map(chr, range(33)))).translate(dict.fromkeys(map(ord, "\t\n\r")))
    return text.partition(":")[0].lower()


def agrees(case: dict[str, Any]) -> bool:
    """Return whether a URL, or where a redirect leads, is read as the case says."""
    text, base = case["input"], case.get("base") or "about:blank"
    wanted: str | None = None if case.get("failure") else case["href"].partition("#")[0]
    if base == "about:blank":
        if scheme_of(text) not in WEB:
            return True
        url = parsed(text, *WEB)
        if url is None or wanted is None:
            return (
                url is None and wanted is None and all(same_host(text, scheme) for scheme in OTHERS)
            )
        # A "?" with nothing after it is not sent.
        same = href(url) in (wanted, wanted.removesuffix("?"))
        return same and all(same_host(text, scheme) for scheme in OTHERS)
    start = parsed(base, "http", "https")
    if start is None:
        return True
    try:
        joined = joined_url(start, text.encode("utf-8", "surrogatepass"))
    except SettingError:
        return wanted is None
    if start.user and "@" not in text:
        # A redirect takes no credentials along.
        joined = joined.replace(
            "://", f"://{start.user}{f':{start.password}' * bool(start.password)}@"
        )
    return joined.partition("#")[0] == wanted


def same_host(text: str, scheme: str) -> bool:
    if not text.lower().startswith("http://"):
        return True
    web, other = parsed(text, "http"), parsed(f"{scheme}{text[4:]}", scheme)
    return (None if web is None else web.host) == (None if other is None else other.host)


def test_urls_are_read_as_the_standards_own_tests_say(program: Callable[..., str]) -> None:
    cases = url_cases(program)
    differ = {case["input"] for case in cases if not agrees(case)}
    assert len(cases) > 800
    assert differ == known(_URLS)


def fetched(url: str) -> int | None:
    """Return the status that libcurl reads by itself, None if it says that the transfer failed."""
    curl = pycurl.Curl()
    for option, value in (
        (pycurl.URL, url),
        (pycurl.ACCEPT_ENCODING, ""),
        (pycurl.WRITEFUNCTION, len),
        (pycurl.NOSIGNAL, 1),
        (pycurl.PROXY, ""),
        (pycurl.TIMEOUT, 20),
    ):
        curl.setopt(option, value)
    try:
        curl.perform()
        return int(curl.getinfo(pycurl.RESPONSE_CODE))
    except pycurl.error:
        return None
    finally:
        curl.close()


async def test_replies_of_curls_tests_are_judged_as_by_curl(program: Callable[..., str]) -> None:
    replies = await asyncio.to_thread(curl_replies, program)
    unread = [name for name, library in _CODINGS.items() if library not in pycurl.version]
    assert len(replies) > 600

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(replies[head.split(b" ")[1].decode().strip("/")])
        writer.close()

    # What the check says, and the status that libcurl reads.
    differ: dict[str, tuple[str | None, int | None]] = {}
    checks = Checks(resolver_threads=2)
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = {"follow_redirects": False, "expected_status": ["100-999"]}
    settings |= {"body_absent_regexp": "no such text", "max_body_bytes": 1 << 28, "timeout": 20}

    async def compare(number: int, name: str) -> None:
        url = f"http://127.0.0.1:{port}/{name}"
        job = read_job({"id": number, "kind": "http", "url": url, **settings})
        outcome, _ = await check_job(job, checks.prepare(job))
        checks.forget(number)
        assert outcome.error is None or outcome.error.partition(":")[0] in error_words(), name
        assert "the check failed on it" not in (outcome.error or ""), name
        alone = await asyncio.to_thread(fetched, url)
        if alone != (outcome.status if outcome.up else None):
            differ[name] = (outcome.error, alone)

    try:
        for number, (name, reply) in enumerate(replies.items(), start=1):
            if not any(header in reply for header in unread):
                await compare(number, name)
    finally:
        await checks.close()
        server.close()
        await server.wait_closed()
    assert differ.keys() == known(_REPLIES), differ
