"""Listening sockets for an address of the config."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

from monitor.errors import ListenError
from monitor.settings import address_text

__all__ = ["give_up_after", "listening_sockets", "zeromq_endpoints"]

_BACKLOG = 1024
_RESOLVE_S = 10.0


async def listening_sockets(
    address: tuple[str, int], *, key: str, unacknowledged_s: float
) -> list[socket.socket]:
    """Return a socket for each address of the host; ``*`` or an empty host means all addresses.

    Connections give up a peer that acknowledges nothing for ``unacknowledged_s``. Raises
    ListenError with ``key``.
    """
    try:
        found = await _resolve(address)
    except TimeoutError:
        raise ListenError(
            key, address_text(address), "the name could not be resolved in time"
        ) from None
    except (OSError, UnicodeError) as error:
        problem = getattr(error, "strerror", None) or "no such host"
        raise ListenError(key, address_text(address), problem) from None
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, target in dict.fromkeys(found):
            if address[1] == 0 and sockets:
                break
            try:
                listener = socket.socket(family, kind, protocol)
            except OSError:
                # A kernel without IPv6 still resolves to it.
                continue
            sockets.append(listener)
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            give_up_after(listener, unacknowledged_s)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(target)
            listener.listen(_BACKLOG)
    except OSError as error:
        for listener in sockets:
            listener.close()
        problem = os.strerror(error.errno) if error.errno else str(error)
        raise ListenError(key, address_text(address), problem) from None
    if not sockets:
        raise ListenError(
            key, address_text(address), "none of its addresses has a supported family"
        )
    return sockets


def give_up_after(listener: socket.socket, unacknowledged_s: float) -> None:
    """Let new connections give up a peer that acknowledges nothing for ``unacknowledged_s``.

    Accepted sockets inherit TCP_USER_TIMEOUT (tcp(7)).
    """
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(unacknowledged_s * 1000))


async def zeromq_endpoints(address: tuple[str, int]) -> list[str]:
    """Return endpoints for libzmq, which binds to addresses and interfaces, not to host names."""
    host, port = address
    if host in ("*", ""):
        return [f"tcp://*:{port}"]
    try:
        found = await _resolve(address)
    except (socket.gaierror, TimeoutError, UnicodeError):
        # It may be the name of an interface, such as eth0; if not, bind fails.
        return [f"tcp://{host}:{port}"]
    numbers = dict.fromkeys(str(entry[4][0]) for entry in found)
    if port == 0:
        numbers = dict.fromkeys(list(numbers)[:1])
    return [f"tcp://{address_text((number, port))}" for number in numbers]


async def _resolve(address: tuple[str, int]) -> list[tuple[int, int, int, str, tuple[Any, ...]]]:
    host, port = address
    async with asyncio.timeout(_RESOLVE_S):
        found: list[Any] = await asyncio.get_running_loop().getaddrinfo(
            None if host in ("*", "") else host,
            port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
    return found
