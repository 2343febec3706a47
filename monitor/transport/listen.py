"""Listening sockets for an address of the config."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import ipaddress
import os
import socket
import struct
from typing import Any

from monitor.errors import ListenError
from monitor.settings import ListenAddress, address_text

__all__ = ["NOT_HERE", "give_up_after", "listening_sockets", "zeromq_endpoints"]

# This machine lacks the address, or a kernel without IPv6 its family.
NOT_HERE = frozenset((errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENODEV))
_BACKLOG = 1024
_SIOCGIFADDR = 0x8915
_LONGEST_INTERFACE = 15
_RESOLVE_S = 10.0

# As getaddrinfo returns it.
_Found = tuple[int, int, int, str, tuple[Any, ...]]


async def listening_sockets(
    address: ListenAddress, *, key: str, unacknowledged_s: float
) -> list[socket.socket]:
    """Return a socket for each address of each host; ``*`` or an empty one means all addresses.

    Addresses of a name that this machine does not have are left out, unless none is left.
    Connections give up a peer that acknowledges nothing for ``unacknowledged_s``. Raises
    ListenError with ``key``.
    """
    hosts, port = address
    sockets: list[socket.socket] = []
    seen: set[_Found] = set()
    try:
        for host in [hosts] if isinstance(hosts, str) else hosts:
            found = dict.fromkeys(await _addresses((host, port), key))
            new = [entry for entry in found if entry not in seen]
            seen.update(new)
            try:
                _bind(new, sockets, unacknowledged_s)
            except OSError as error:
                problem = os.strerror(error.errno) if error.errno else str(error)
                raise ListenError(key, address_text((host, port)), problem) from None
    except ListenError:
        for listener in sockets:
            listener.close()
        raise
    return sockets


def _bind(addresses: list[_Found], sockets: list[socket.socket], unacknowledged_s: float) -> None:
    """Add a socket for each of the addresses that this machine has; one at all for port 0."""
    missing: OSError | None = None
    before = len(sockets)
    for family, kind, protocol, _, target in addresses:
        if target[1] == 0 and sockets:
            return
        listener = None
        try:
            listener = socket.socket(family, kind, protocol)
            _prepare(listener, unacknowledged_s)
            listener.bind(target)
        except OSError as error:
            if listener is not None:
                listener.close()
            if error.errno not in NOT_HERE:
                raise
            missing = error
            continue
        sockets.append(listener)
        listener.listen(_BACKLOG)
    if missing is not None and len(sockets) == before:
        raise missing


def _prepare(listener: socket.socket, unacknowledged_s: float) -> None:
    listener.setblocking(False)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    give_up_after(listener, unacknowledged_s)
    if listener.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)


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
    return [f"tcp://{address_text((number, port))}" for number in numbers]


async def _addresses(place: tuple[str, int], key: str) -> list[_Found]:
    try:
        return await _resolve_or_find(place)
    except TimeoutError:
        raise ListenError(
            key, address_text(place), "the name could not be resolved in time"
        ) from None
    except (OSError, UnicodeError) as error:
        problem = getattr(error, "strerror", None) or "no such host"
        raise ListenError(key, address_text(place), problem) from None


async def _resolve_or_find(address: tuple[str, int]) -> list[_Found]:
    """Resolve a host, which may also be the name of an interface, such as eth0."""
    host, port = address
    try:
        return await _resolve(address)
    except (OSError, UnicodeError):
        # TimeoutError, too
        number = _interface_address(host)
        if number is None:
            raise
        return await _resolve((number, port))


def _interface_address(name: str) -> str | None:
    """Return the IPv4 address of an interface, None if there is none; see netdevice(7)."""
    encoded = name.encode(errors="replace")
    if len(encoded) > _LONGEST_INTERFACE:
        return None
    request = struct.pack("16s240x", encoded)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            answer = fcntl.ioctl(asking.fileno(), _SIOCGIFADDR, request)
        except OSError:
            return None
    return socket.inet_ntoa(answer[20:24])


async def _resolve(address: tuple[str, int]) -> list[_Found]:
    host, port = address
    with contextlib.suppress(ValueError):
        # ::ffff:127.0.0.1: no socket that is for IPv6 only takes it.
        host = str(ipaddress.IPv6Address(host).ipv4_mapped or host)
    async with asyncio.timeout(_RESOLVE_S):
        found: list[Any] = await asyncio.get_running_loop().getaddrinfo(
            None if host in ("*", "") else host,
            port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
    return found
