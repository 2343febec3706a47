"""Which addresses collide: what is said before the start, and what the kernel says at it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from pathlib import Path

import pytest
import zmq

from monitor.daemon.address_conflicts import Listener, require_apart
from monitor.daemon.assembly import check_addresses
from monitor.daemon.config import load
from monitor.errors import ConfigError, ListenError, SettingError
from monitor.transport.listen import listening_sockets, zeromq_endpoints
from tests.ports import free_port

HOSTS = ["127.0.0.1", "127.0.0.2", "0.0.0.0", "*", "", "::", "::1", "0:0::1", "localhost"]


async def can_be_had(*listeners: Listener) -> bool:
    """Bind all as the daemon does, and return whether that can be."""
    with contextlib.ExitStack() as bound:
        context = bound.enter_context(zmq.Context())
        try:
            for listener in listeners:
                if not listener.zeromq:
                    for each in await listening_sockets(
                        listener.address, key="uri", unacknowledged_s=10
                    ):
                        bound.enter_context(each)
                    continue
                endpoints = await zeromq_endpoints(listener.address)
                router = bound.enter_context(context.socket(zmq.ROUTER))
                router.setsockopt(zmq.IPV6, any("[" in endpoint for endpoint in endpoints))
                for endpoint in endpoints:
                    router.bind(endpoint)
        except (ListenError, zmq.ZMQError):
            return False
    return True


@pytest.mark.parametrize("zeromq", [(False, False), (False, True), (True, True)])
def test_what_is_refused_is_what_cannot_be_bound(zeromq: tuple[bool, bool]) -> None:
    async def main() -> None:
        # A host may lack IPv6, or call another address localhost.
        hosts = [host for host in HOSTS if await _is_as_usual(host)]
        assert {"127.0.0.1", "127.0.0.2", "0.0.0.0", "*", ""} <= set(hosts)
        for one, two in itertools.product(hosts, hosts):
            port = free_port()
            first = Listener(("a",), (one, port), zeromq=zeromq[0])
            second = Listener(("b",), (two, port), zeromq=zeromq[1])
            there = await can_be_had(first, second)
            assert first.collides(second) is not there, (one, two)
            assert second.collides(first) is not there, (one, two)

    asyncio.run(main())


async def _is_as_usual(host: str) -> bool:
    if host == "localhost":
        found = await asyncio.get_running_loop().getaddrinfo(host, 0)
        return {entry[4][0] for entry in found} == {"127.0.0.1", "::1"}
    return await can_be_had(Listener(("a",), (host, 0)))


def test_names_ports_and_free_ones() -> None:
    def collide(one: tuple[str, int], two: tuple[str, int]) -> bool:
        return Listener(("a",), one).collides(Listener(("b",), two))

    assert collide(("Monitor.example", 1), ("monitor.EXAMPLE", 1))
    assert collide(("*", 1), ("monitor.example", 1))
    # A name may have addresses of the other kind alone, as Debian's ip6-localhost.
    assert not collide(("ip6-localhost", 1), ("0.0.0.0", 1))
    assert not collide(("::", 1), ("ip4.example", 1))
    assert not collide(("monitor.example", 1), ("other.example", 1))
    assert not collide(("monitor.example", 1), ("127.0.0.1", 1))
    assert not collide(("*", 1), ("*", 2))
    assert not collide(("*", 0), ("*", 0))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "websocket_uri: ['*', 7000]\nzeromq_uri: [127.0.0.1, 7000]",
            ":2: zeromq_uri: 127.0.0.1:7000 can't be had beside websocket_uri, which is *:7000;",
        ),
        # What is as by default is not to blame.
        (
            "websocket_uri: [localhost, 7894]",
            ":1: websocket_uri: localhost:7894 can't be had beside z",
        ),
        (
            "\nwebsocket_uri: ['', 9000]\napi: {}",
            ":2: websocket_uri: :9000 can't be had beside api.uri",
        ),
        (
            "api:\n  uri: [127.0.0.1, 4567]",
            ":2: api.uri: 127.0.0.1:4567 can't be had beside websocket",
        ),
        (
            "logs:\n  zeromq_uri: ['::', 7894]",
            ":2: logs.zeromq_uri: [::]:7894 can't be had beside zero",
        ),
        (
            'websocket_uri: ["a\\nb", 7000]\nzeromq_uri: ["a\\nb", 7000]',
            r":2: zeromq_uri: a\nb:7000 can't be had beside websocket_uri, which is a\nb:7000;",
        ),
        (
            "api: {}\nlogs: {zeromq_uri: [127.0.0.1, 9000]}",
            ":2: logs.zeromq_uri: 127.0.0.1:9000 can't",
        ),
    ],
)
def test_the_setting_to_change_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "config.yml"
    file.write_text(text)
    loaded = load(str(file))
    with pytest.raises(ConfigError) as caught:
        check_addresses(loaded)
    assert str(caught.value).startswith(f"{file}{said}")
    assert caught.value.exit_status == 78


@pytest.mark.parametrize(
    "text",
    [
        "relay: false\nwebsocket_uri: [127.0.0.1, 9000]\napi: {}",
        "websocket_uri: [127.0.0.1, 0]\nzeromq_uri: [127.0.0.1, 0]\napi: {uri: ['', 0]}",
        "websocket_uri: [127.0.0.1, 7000]\nzeromq_uri: [127.0.0.2, 7000]",
        "logs: {}",
        "",
    ],
)
def test_what_listens_nowhere_or_elsewhere_is_left_alone(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.yml"
    file.write_text(text)
    check_addresses(load(str(file)))


def test_of_many_the_first_two_that_collide_are_named() -> None:
    addresses = [("a", 1), ("b", 1), ("c", 1), ("b", 1), ("a", 1)]
    listeners = [Listener((str(n),), address) for n, address in enumerate(addresses)]
    with pytest.raises(SettingError) as caught:
        require_apart(listeners)
    assert caught.value.path == ("4",)
