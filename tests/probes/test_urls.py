"""URLs are read as browsers read them, in jobs of every kind and in redirects."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.errors import SettingError
from monitor.probes.checks import KINDS
from monitor.probes.racing import connect_first, interleaved
from monitor.probes.resolver import Resolver
from monitor.probes.sockets import Sockets
from monitor.probes.urls import ascii_host, joined_url, parse_url, shown_url
from tests.probes.attempts import check
from tests.probes.misbehaving import Misbehaving

SCHEMES = [scheme for check in KINDS.values() for scheme in check.job.schemes]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("host", "read"),
    [
        ("straße.test", "xn--strae-oqa.test"),
        ("βόλος.test", "xn--nxasmm1c.test"),
        ("نامه‌ای.test", "xn--mgba3gch31f060k.test"),
        ("ＥＸＡＭＰＬＥ.test", "example.test"),
        ("☕.test", "xn--53h.test"),
        ("a_b.Test", "a_b.test"),
        ("xn--strae-oqa.test", "xn--strae-oqa.test"),
        ("a。test.", "a.test."),
        ("%C3%BC.test", "xn--tda.test"),
        ("0x7f.1", "127.0.0.1"),
        ("[::0:1]", "::1"),
    ],
)
def test_a_host_is_the_same_in_every_kind(scheme: str, host: str, read: str) -> None:
    assert parse_url(f"{scheme}://{host}:8080", (scheme,)).host == read
    assert parse_url(f" {scheme.upper()}:/\t/{host}:8080\n", (scheme,)).port == 8080
    if not host.startswith("%"):
        assert ascii_host(host.strip("[]")) == read


@pytest.mark.parametrize("port", [80, 443, 21, 1, 65535])
def test_a_port_is_read_in_every_kind(port: int) -> None:
    for scheme in SCHEMES:
        assert parse_url(f"{scheme}://x:{port}", (scheme,)).port == port


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "rest",
    ["", "//", "//a b", "//x:99999", "//x:1x", "//[::1", "//[fe80::1%25lo]", "//1.2.3.400", "//a<b",
     "//%00.test", "//a‍b.test", "//a..test", f"//{'a' * 64}.test", f"//{'a.' * 130}test", "//x:0"],
)  # fmt: skip
def test_what_is_no_url_is_refused_in_one_line(scheme: str, rest: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_url(f"{scheme}:{rest}", (scheme,), port=scheme not in ("http", "https", "ws", "wss"))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://x/a b", "http://x/a%20b"),
        ("http:\\\\x\\a\\..\\b", "http://x/b"),
        ("http://x/ü?ü=%ff&\"'", "http://x/%C3%BC?%C3%BC=%ff&%22%27"),
        ("http://x/{}|^`", "http://x/%7B%7D|%5E%60"),
        ("http://u:p%40@x:80#f", "http://x/"),
        ("http://x/%2e%2E/./a//b", "http://x/a//b"),
    ],
)
def test_a_path_is_sent_as_browsers_send_it(url: str, sent: str) -> None:
    assert parse_url(url, ("http",)).bare == sent


@pytest.mark.parametrize(
    ("location", "leads"),
    [
        (b"b", "http://x/d/b"),
        (b"?q", "http://x/d/a?q"),
        (b"//y:81/", "http://y:81/"),
        (b"\\\\y\\b", "http://y/b"),
        (b"HTTP://Y", "http://y/"),
        (b"gr\xfcn", "http://x/d/gr%FCn"),
        ("grün".encode(), "http://x/d/gr%C3%BCn"),
        ("//grün.test".encode(), "http://xn--grn-ioa.test/"),
        (b"../../..//c", "http://x//c"),
        (b" c\t", "http://x/d/c"),
    ],
)
def test_a_redirect_leads_where_a_browser_goes(location: bytes, leads: str) -> None:
    assert joined_url(parse_url("http://u:p@x/d/a", ("http",)), location) == leads


@given(st.text(max_size=40))
def test_any_text_is_a_url_or_refused_and_no_password_is_shown(text: str) -> None:
    for url in (text, f"http://{text}", f"tcp://u:hunter2@{text}"):
        assert "hunter2" not in shown_url(url) or "hunter2" in text
        try:
            found = parse_url(url, ("http", "tcp"))
        except SettingError as error:
            assert "\n" not in str(error)
        else:
            assert found.bare.isascii()


@pytest.mark.parametrize(
    "url",
    ["http:\\\\u:hunter2@x/", "http:u:hunter2@x", "http:/u:hunter2@x", "ht\ntp://u:hunter2@x"],
)
def test_a_password_is_hidden_in_odd_forms_too(url: str) -> None:
    assert "hunter2" not in shown_url(url)


def test_the_families_take_turns() -> None:
    assert interleaved(["::1", "::2", "::3", "1.1.1.1"]) == ["::1", "1.1.1.1", "::2", "::3"]
    assert interleaved(["1.1.1.1"]) == ["1.1.1.1"]


def full_listener() -> socket.socket:
    """A listener that answers no further connection: its queue is full."""
    listener = socket.socket()
    listener.bind(("127.0.0.3", 0))
    listener.listen(0)
    return listener


async def test_an_address_that_does_not_answer_holds_up_the_next_one_only_for_a_moment(
    sockets: Sockets,
) -> None:
    with closing(full_listener()) as dead:
        port = dead.getsockname()[1]
        fillers = [socket.socket() for _ in range(8)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.3", port))
        # A refusal, silence, and then the one that accepts.
        addresses = ["127.0.0.2", "127.0.0.3", "127.0.0.1"]
        with (
            socket.create_server(("127.0.0.1", port)),
            await connect_first(sockets, addresses, port) as connection,
        ):
            assert connection.getpeername()[0] == "127.0.0.1"
        for filler in fillers:
            filler.close()
    with pytest.raises(ConnectionRefusedError):
        await connect_first(sockets, ["127.0.0.2", "127.0.0.1"], port)


@pytest.mark.parametrize("scheme", ["http", "tcp", "ws"])
async def test_a_name_with_a_dead_address_first_is_up_in_every_kind(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Misbehaving()
    try:

        async def both(self: Resolver, host: str, ip_version: str) -> list[str]:
            # stands for a name with two addresses: no name server is asked here
            return ["127.0.0.9", "127.0.0.1"]

        monkeypatch.setattr(Resolver, "resolve", both)
        path = "" if scheme == "tcp" else "/ok"
        outcome = await check(f"{scheme}://two.test:{server.port}{path}", timeout=60)
        assert outcome.error == ("bad-status: 200" if scheme == "ws" else None)
    finally:
        server.close()


@pytest.mark.parametrize("scheme", ["http", "ws"])
@pytest.mark.parametrize("credentials", ["%00", "a:%00b", ":x%00"])
def test_credentials_that_cannot_be_sent_are_refused(scheme: str, credentials: str) -> None:
    with pytest.raises(SettingError, match="has credentials with NUL"):
        parse_url(f"{scheme}://{credentials}@a.test/", (scheme,))
