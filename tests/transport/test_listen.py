"""Listening sockets for the addresses of a config."""

from __future__ import annotations

import socket

import pytest

from monitor.errors import ListenError
from monitor.transport.listen import listening_sockets


async def listen(host: str) -> list[socket.socket]:
    return await listening_sockets((host, 0), key="websocket_uri", unacknowledged_s=7)


async def test_accepted_connections_give_up_a_silent_peer() -> None:
    (listener,) = await listen("127.0.0.1")
    with listener, socket.create_connection(listener.getsockname()) as client:
        listener.setblocking(True)
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7000
        assert client.recv(1) == b""


@pytest.mark.parametrize(
    "host", ["*", "", "localhost", "::1", "127.0.0.1", "lo", "::ffff:127.0.0.1"]
)
async def test_hosts(host: str) -> None:
    sockets = await listen(host)
    for listener in sockets:
        with listener, socket.create_connection(listener.getsockname()[:2]):
            pass
    assert sockets


async def test_several_hosts_are_all_listened_on_once_each() -> None:
    (taken,) = await listen("127.0.0.1")
    port = taken.getsockname()[1]
    taken.close()
    sockets = await listening_sockets(
        (("127.0.0.1", "127.0.0.2", "127.0.0.1"), port), key="websocket_uri", unacknowledged_s=7
    )
    assert [each.getsockname() for each in sockets] == [("127.0.0.1", port), ("127.0.0.2", port)]
    with pytest.raises(ListenError, match=r"cannot listen on 192\.0\.2\.1:"):
        await listening_sockets(
            (("127.0.0.3", "192.0.2.1"), port), key="websocket_uri", unacknowledged_s=7
        )
    for each in sockets:
        each.close()


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "x" * 300, "a..b"])
async def test_hosts_that_are_not_ours_are_one_line(host: str) -> None:
    with pytest.raises(ListenError) as caught:
        await listen(host)
    assert str(caught.value).startswith(f"websocket_uri: cannot listen on {host}:0: ")
    assert "\n" not in str(caught.value)
