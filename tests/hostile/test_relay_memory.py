"""Clients of the relay that hold all they can: it is counted and bounded, and costs no job."""

from __future__ import annotations

import contextlib
import json
import re
import selectors
import socket
from collections.abc import Callable, Iterator

import pytest
import requests

from tests.hostile.attacks import masked, upgrade
from tests.ports import free_port
from tests.relay.conftest import Relay, StartRelay, everything, start_relay
from tests.relay.test_hostile import resident_kilobytes
from tests.waiting import LIMIT_S, wait_for

__all__ = ["start_relay"]

pytestmark = pytest.mark.integration_test

KILO = 1024
V2 = upgrade("/", "Sec-WebSocket-Protocol: recodex.monitor.v2")


def request(kind: str, channel: str) -> bytes:
    return masked(1, json.dumps({"type": kind, "channel": channel}).encode())


@contextlib.contextmanager
def holding(
    relay: Relay, connections: int, says: Callable[[int], bytes], last: Callable[[int], bytes]
) -> Iterator[int]:
    """Let clients send and read until each got ``last``, or was closed; give how many are left."""
    left = 0
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for number in range(connections):
            peer = stack.enter_context(
                socket.create_connection(("127.0.0.1", relay.websocket_port))
            )
            peer.setblocking(False)
            data = [number, memoryview(V2 + says(number)), b""]
            selector.register(peer, selectors.EVENT_READ | selectors.EVENT_WRITE, data)
        while selector.get_map():
            ready = selector.select(60)
            assert ready, "no answer within 60 s"
            for key, events in ready:
                number, rest, got = key.data
                assert isinstance(key.fileobj, socket.socket)
                try:
                    if events & selectors.EVENT_WRITE:
                        key.data[1] = rest[key.fileobj.send(rest[:65536]) :]
                        if not key.data[1]:
                            selector.modify(key.fileobj, selectors.EVENT_READ, key.data)
                    if events & selectors.EVENT_READ:
                        new = key.fileobj.recv(65536)
                        key.data[2] = (got + new)[-10_000:]
                        if last(number) in key.data[2]:
                            left += 1
                            selector.unregister(key.fileobj)
                        elif not new:
                            selector.unregister(key.fileobj)
                except BlockingIOError:
                    continue
                except OSError:
                    selector.unregister(key.fileobj)
        yield left


@pytest.mark.parametrize("leaves", [False, True], ids=["staying", "leaving"])
def test_channels_with_long_names_are_counted_and_bounded(
    start_relay: StartRelay, leaves: bool
) -> None:
    relay = start_relay(debug=False, max_history_bytes=32 * KILO * KILO, max_clients=100)
    before = resident_kilobytes(relay.daemon.pid)

    def says(number: int) -> bytes:
        names = [f"{number}-{n}-".ljust(4096, "x") for n in range(1000)]
        frames = [request("subscribe", name) for name in names]
        if leaves:
            frames += [request("leave", name) for name in names]
        return b"".join([*frames, request("subscribe", f"end-{number}")])

    with holding(relay, 10, says, lambda number: b'"channel":"end-%d"' % number) as left:
        # Each holds 5.5 MB at least for a while, and all together may hold 8.
        assert left <= 2 or leaves
        assert resident_kilobytes(relay.daemon.pid) - before < 24 * KILO
    relay.broker.send("c", "FINISHED")
    assert everything(relay.client("c"))[1] == 1000


def test_empty_channels_take_nothing_from_a_job(start_relay: StartRelay) -> None:
    relay = start_relay(debug=False, max_history_bytes=8 * KILO * KILO, max_clients=100)
    reader = relay.client("job")
    relay.wait_subscribed("job")

    def says(number: int) -> bytes:
        names = [f"{number}-{n}" for n in range(999)]
        return b"".join(request("subscribe", name) for name in [*names, f"end-{number}"])

    with holding(relay, 20, says, lambda number: b'"channel":"end-%d"' % number) as left:
        # They hold 30 MB, of which 2 are for channels without a message.
        assert left < 3
        for number in range(300):
            relay.broker.task("job", number)
        relay.broker.send("job", "FINISHED")
        got, code = everything(reader)
    assert (len(got), code) == (301, 1000)


@pytest.mark.parametrize("protocol", ["1", "2"])
def test_connections_are_counted_as_what_they_take(start_relay: StartRelay, protocol: str) -> None:
    api = ["127.0.0.1", free_port()]
    relay = start_relay(debug=False, max_clients=2000, sections={"api": {"uri": api}})
    hello = V2 if protocol == "2" else upgrade("/")

    def metric(name: str) -> float:
        text = requests.get(f"http://127.0.0.1:{api[1]}/metrics", timeout=LIMIT_S).text
        found = re.search(rf"^recodex_monitor_relay_{name} (\S+)$", text, re.MULTILINE)
        assert found
        return float(found[1])

    def clients(first: int, count: int) -> None:
        for number in range(first, first + count):
            name = f"c-{number}"
            peer = socket.create_connection(("127.0.0.1", relay.websocket_port))
            stack.callback(peer.close)
            peer.sendall(hello)
            peer.sendall(
                request("subscribe", name) if protocol == "2" else masked(1, name.encode())
            )
        wait_for(lambda: metric("channels") == first + count, "all are subscribed")

    def counted() -> float:
        return metric("history_bytes") + metric("connection_bytes")

    with contextlib.ExitStack() as stack:
        # The first ones take memory that the process has.
        clients(0, 100)
        before, counted_before = resident_kilobytes(relay.daemon.pid), counted()
        clients(100, 1500)
        grown = (resident_kilobytes(relay.daemon.pid) - before) * KILO
        ratio = grown / (counted() - counted_before)
    assert 1 / 1.5 < ratio < 1.5
