"""Headers by which a trusted proxy names the client."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.transport.preface import MAX_BYTES, Preface
from monitor.transport.proxies import forwarded_for, is_trusted, read_proxy_header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
PROXIES = ["10.0.0.0/8", "127.0.0.1", "2001:db8::/32"]


def version_2(family: int, addresses: bytes, *, command: int = 1, extensions: bytes = b"") -> bytes:
    body = addresses + extensions
    return SIGNATURE + bytes([0x20 | command, family]) + len(body).to_bytes(2) + body


TCP4 = version_2(
    0x11, socket.inet_aton("192.0.2.7") + socket.inet_aton("127.0.0.1") + struct.pack("!HH", 5, 6)
)
TCP6 = version_2(
    0x21,
    socket.inet_pton(socket.AF_INET6, "2001:db9::7") * 2 + struct.pack("!HH", 5, 6),
    extensions=b"\x04\0\1x",
)
HEADERS = [
    (b"PROXY TCP4 192.0.2.7 127.0.0.1 5 6\r\n", ("192.0.2.7", 5)),
    (b"PROXY TCP6 2001:db9::7 ::1 5 6\r\n", ("2001:db9::7", 5)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff:: ffff:: 1 2\r\n", None),
    (TCP4, ("192.0.2.7", 5)),
    (TCP6, ("2001:db9::7", 5)),
    (version_2(0, b"", command=0), None),
    # IPv4 at a listener for both.
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 5 6\r\n", ("192.0.2.7", 5)),
    (
        version_2(
            0x21,
            socket.inet_pton(socket.AF_INET6, "::ffff:192.0.2.7") * 2 + struct.pack("!HH", 5, 6),
        ),
        ("192.0.2.7", 5),
    ),
]


@pytest.mark.parametrize(("header", "client"), HEADERS)
@given(st.binary(max_size=5), st.data())
def test_a_header_is_read_in_whatever_pieces_it_comes(
    header: bytes, client: tuple[str, int] | None, rest: bytes, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(header) - 1))
    assert read_proxy_header(header[:cut]) is None
    assert read_proxy_header(header + rest) == (len(header), client)


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP4 192.0.2.7\r\n",
        b"PROXY TCP4 nobody 127.0.0.1 5 6\r\n",
        b"PROXY UDP4 192.0.2.7 127.0.0.1 5 6\r\n",
        b"PROXY TCP4 192.0.2.7 127.0.0.1 777777 6\r\n",
        b"PROXY TCP4 192.0.2.7 127.0.0.1 65536 6\r\n",
        b"PROXY " + b"x" * 200,
        SIGNATURE + b"\x11\x11\0\x0c" + bytes(12),
        version_2(0x11, b"abc"),
        SIGNATURE + b"\x21\x11\xff\xff",
    ],
)
def test_an_invalid_header_is_an_error(header: bytes) -> None:
    with pytest.raises(ValueError):
        read_proxy_header(header)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\n", b"\x16\x03\x01"])
def test_without_a_header_nothing_is_taken(data: bytes) -> None:
    assert read_proxy_header(data) == (0, None)


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        (["192.0.2.7"], ("192.0.2.7", 0)),
        # What the client itself sent comes first, and is not believed.
        (["203.0.113.5, 192.0.2.7"], ("192.0.2.7", 0)),
        (["203.0.113.5", "192.0.2.7, 10.1.2.3"], ("192.0.2.7", 0)),
        (["192.0.2.7:4711"], ("192.0.2.7", 4711)),
        (["192.0.2.7:65536"], ("192.0.2.7", 0)),
        # Elements that are empty mean nothing.
        (["192.0.2.7, ", "", ",\t10.1.2.3,"], ("192.0.2.7", 0)),
        (["[2001:db9::7]:4711, 127.0.0.1"], ("2001:db9::7", 4711)),
        (["10.1.2.3"], ("10.1.2.3", 0)),
        (["192.0.2.7, ::ffff:10.1.2.3"], ("192.0.2.7", 0)),
        (["::ffff:192.0.2.7"], ("192.0.2.7", 0)),
        # A zone could be any text, which the log would repeat.
        (["fe80::1%eth0 subscribed to c"], ("fe80::1", 0)),
        (["unknown, 10.1.2.3"], ("10.1.2.3", 0)),
        (["unknown"], None),
        ([""], None),
        ([], None),
    ],
)
def test_the_last_address_that_is_not_a_proxy_is_the_client(
    headers: list[str], client: tuple[str, int] | None
) -> None:
    assert forwarded_for(headers, PROXIES) == client


def test_trusted_are_the_networks_of_the_config_alone() -> None:
    for address in ("10.255.0.1", "127.0.0.1", "2001:db8:1::1", "::ffff:10.0.0.1"):
        assert is_trusted(address, PROXIES)
    for address in ("11.0.0.1", "127.0.0.2", "2001:db9::1", "unix", ""):
        assert not is_trusted(address, PROXIES)
    assert not is_trusted("127.0.0.1", [])


@pytest.mark.parametrize("body", [0, 100, 2 * MAX_BYTES])
def test_a_plain_request_is_one_however_much_of_its_body_comes_with_it(body: int) -> None:
    preface = Preface(from_proxy=False)
    assert preface.take(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + b"x" * body) is not None
    assert preface.plain_method == "GET"


@given(st.binary(), st.booleans())
def test_what_is_no_preface_passes_unchanged(data: bytes, from_proxy: bool) -> None:
    preface = Preface(from_proxy=from_proxy)
    try:
        found = preface.take(data)
    except ValueError:
        return
    assert found is None or data.endswith(found)
    filler = b"x" * MAX_BYTES
    if found is None:
        try:
            more = preface.take(filler)
        except ValueError:
            return
        assert more is not None
        assert (data + filler).endswith(more)
