"""Inputs near real ones are answered or refused by each parser, whatever was changed in them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor.logs.actions import parse
from monitor.logs.answers import ActionError, ErrorCode
from monitor.logs.heads import echo
from monitor.relay.protocol_v2 import BadRequest, decode_request
from monitor.transport.zmtp import Zmtp, ZmtpError
from tests.hostile.mutations import corpus, mutated
from tests.waiting import LIMIT_S
from tests.web.serving import Serving, serving


@given(mutated("relay_v2"))
def test_a_request_to_the_relay_is_decoded_or_answered(data: bytes) -> None:
    try:
        request = decode_request(data)
    except BadRequest as error:
        text = error.frame[error.frame.index(b"{") :]
        assert json.loads(text)["code"] == "bad-request"
    else:
        assert 0 < len(request.channel.encode()) <= 4096


@given(mutated("actions"))
def test_a_log_action_is_parsed_or_answered(data: bytes) -> None:
    try:
        parse(data, max_batch=3)
    except ActionError as error:
        answer = json.loads(error.answer(echo(data)))
        assert answer["status"] == "error"
        assert answer["error"]["code"] in set(ErrorCode)


def _frames(
    data: bytes, piece: int, max_frames: float, old_peers: bool
) -> tuple[list[list[bytes]], str]:
    zmtp = Zmtp(max_frame_bytes=100_000, max_frames=max_frames, old_peers=old_peers)
    problem = ""
    try:
        for start in range(0, len(data), piece):
            zmtp.receive(data[start : start + piece])
    except ZmtpError as error:
        problem = str(error)
    return list(zmtp.messages), problem


@pytest.mark.parametrize(("max_frames", "old_peers"), [(64, False), (math.inf, True)])
@given(data=mutated("zmtp"), piece=st.integers(1, 50))
def test_zeromqs_bytes_mean_the_same_in_whatever_pieces(
    data: bytes, piece: int, max_frames: float, old_peers: bool
) -> None:
    limits = (max_frames, old_peers)
    assert _frames(data, piece, *limits) == _frames(data, len(data) or 1, *limits)


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Serving, list[Any]]]:
    defects: list[Any] = []
    with serving(max_connections=1000) as running:
        running.loop.call_soon_threadsafe(
            running.loop.set_exception_handler, lambda _, context: defects.append(context)
        )
        yield running, defects


def _talk(port: int, data: bytes, cuts: list[int]) -> bytes:
    """Send ``data`` in pieces, end the sending, and return all that comes back."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), LIMIT_S) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bounds = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
        with contextlib.suppress(ConnectionError):
            for start, stop in itertools.pairwise(bounds):
                raw.sendall(data[start:stop])
            raw.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while piece := raw.recv(65536):
                got += piece
    return got


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=mutated("http"), cuts=st.lists(st.integers(0, 10_000), max_size=4))
def test_http_is_answered_without_a_defect_and_the_server_lives(
    server: tuple[Serving, list[Any]], data: bytes, cuts: list[int]
) -> None:
    running, defects = server
    got = _talk(running.port, data, cuts)
    for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", got):
        assert int(status) < 500 or int(status) in (501, 503, 505), got[:500]
    assert b"Traceback" not in got
    assert not defects


def test_every_entry_of_the_corpus_of_http_leaves_the_server_well(
    server: tuple[Serving, list[Any]],
) -> None:
    running, defects = server
    for data in corpus("http"):
        _talk(running.port, data, [])
    assert requests.get(f"{running.url}/healthz", timeout=LIMIT_S).ok
    assert not defects
    assert running.loop.is_running()
    assert threading.active_count() < 50
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), running.loop).result(LIMIT_S)
