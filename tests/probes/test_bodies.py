"""Bodies are decoded as browsers decode them, whatever pieces they come in."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.probes.checks.http.body import Body
from tests.probes.misbehaving import PAGE


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


CODED = {
    "gzip": gzip.compress(PAGE),
    "x-gzip": gzip.compress(PAGE),
    "deflate": zlib.compress(PAGE),
    "Deflate": raw_deflate(PAGE),
    "gzip, identity": gzip.compress(PAGE),
    "deflate, gzip": gzip.compress(zlib.compress(PAGE)),
    "gzip,gzip": gzip.compress(gzip.compress(PAGE)),
}


def read(coding: str, sent: bytes, *, piece: int = 7, limit: int = 1 << 20) -> Body:
    body = Body(limit, keep=True, decode=True, stream=False)
    body.lines += [b"HTTP/1.1 200 OK\r\n", f"Content-Encoding: {coding}\r\n".encode()]
    for start in range(0, len(sent), piece):
        if body.write(sent[start : start + piece]) is not None:
            break
    return body


@pytest.mark.parametrize("piece", [1, 2, 1000])
@pytest.mark.parametrize("coding", CODED)
def test_a_whole_body_is_decoded(coding: str, piece: int) -> None:
    body = read(coding, CODED[coding], piece=piece)
    assert (body.error, body.finish(), body.content()) == (None, None, PAGE)


@pytest.mark.parametrize("coding", CODED)
def test_a_body_that_breaks_off_anywhere_is_a_bad_answer(coding: str) -> None:
    whole = CODED[coding]
    for size in range(1, len(whole)):
        body = read(coding, whole[:size])
        assert (body.error or body.finish() or "").startswith("bad-answer: "), size
    assert read(coding, b"").finish() is None


@pytest.mark.parametrize(
    "coding", ["UTF-8", "binary", "aws-chunked", "aws-chunked,gzip", "br", "none", "gr\xfcn", ""]
)
def test_a_coding_that_is_none_leaves_the_body_as_it_is(coding: str) -> None:
    body = Body(100, keep=True, decode=True, stream=False)
    body.lines.append(f"Content-Encoding: {coding}".encode("latin-1"))
    assert body.write(PAGE) is None
    assert (body.finish(), body.content()) == (None, PAGE)


@pytest.mark.parametrize("piece", [1, 3, 1000])
@pytest.mark.parametrize("after", [b"\0", bytes(600), b"\x1f", b"\r\n", b"garbage"])
def test_what_follows_the_last_member_is_ignored(after: bytes, piece: int) -> None:
    body = read("gzip", CODED["gzip"] + after, piece=piece)
    assert (body.error, body.finish(), body.content()) == (None, None, PAGE)
    body = read("deflate", CODED["deflate"] + after, piece=piece)
    assert (body.error, body.finish(), body.content()) == (None, None, PAGE)


@pytest.mark.parametrize("piece", [1, 2, 1000])
def test_further_members_are_decoded_too(piece: int) -> None:
    sent = CODED["gzip"] * 3
    body = read("gzip", sent, piece=piece)
    assert (body.finish(), body.content()) == (None, PAGE * 3)
    assert (read("gzip", sent[:-1], piece=piece).finish() or "").startswith("bad-answer: ")


@given(st.binary(min_size=1, max_size=300), st.sampled_from(sorted(CODED)))
def test_any_bytes_are_a_body_or_a_bad_answer(sent: bytes, coding: str) -> None:
    body = read(coding, sent)
    assert (body.error or body.finish() or "bad-answer: ").startswith("bad-answer: ")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "gzip, gzip"])
def test_a_bomb_stops_at_the_bound(coding: str) -> None:
    sent = bytes(1 << 24)
    for name in coding.split(", "):
        sent = gzip.compress(sent) if name == "gzip" else zlib.compress(sent)
    body = read(coding, sent, piece=1 << 20, limit=100_000)
    assert body.error == "body-too-large: longer than 100000 bytes"
    assert len(body.content()) <= 100_000


def test_a_body_stops_at_its_bound() -> None:
    body = Body(10, keep=True, decode=True, stream=False)
    assert body.write(b"12345") is None
    assert body.write(b"67890") is None
    assert body.content() == b"1234567890"
    assert body.write(b"x") == -1
    assert body.error == "body-too-large: longer than 10 bytes"
