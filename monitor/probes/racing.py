"""Connects to the first of a name's addresses that accepts. Source: RFC 8305.

An address that does not answer holds up the next one by a quarter of a second only, and one that
refuses not at all.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from itertools import chain, zip_longest
from typing import Any, TypeVar

from monitor.probes.no_result import own_trouble
from monitor.probes.sockets import Sockets

__all__ = ["connect_first", "first_success", "interleaved"]

T = TypeVar("T")

# The Connection Attempt Delay, section 5, in s.
_DELAY_S = 0.25


def interleaved(addresses: Sequence[str]) -> list[str]:
    """Return the addresses with the families in turns, that of the first one first."""
    if len(addresses) < 2:
        return list(addresses)
    first = ":" in addresses[0]
    same = [address for address in addresses if (":" in address) == first]
    other = [address for address in addresses if (":" in address) != first]
    pairs = chain.from_iterable(zip_longest(same, other))
    return [address for address in pairs if address is not None]


async def connect_first(sockets: Sockets, addresses: Sequence[str], port: int) -> socket.socket:
    """Return a connection to the first address that accepts; raises as :func:`first_success`."""
    return await first_success(addresses, partial(_connect, sockets, port), socket.socket.close)


async def first_success(
    addresses: Sequence[str],
    attempt: Callable[[str], Coroutine[Any, Any, T]],
    discard: Callable[[T], None] = lambda _: None,
) -> T:
    """Return what the first attempt at an address gives that succeeds.

    ``discard`` takes what further ones give. If all fail, raises the OSError of one that could not
    be tried, else of the first that failed; another error of an attempt at once. The caller bounds
    the time.
    """
    if len(addresses) == 1:
        return await attempt(addresses[0])
    waiting = interleaved(addresses)
    running: set[asyncio.Task[T]] = set()
    failure: OSError | None = None
    try:
        while waiting or running:
            if waiting:
                address = waiting.pop(0)
                running.add(asyncio.create_task(attempt(address), name="probe:connect"))
            done, running = await asyncio.wait(
                running,
                timeout=_DELAY_S if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            won: list[T] = []
            for task in done:
                try:
                    won.append(task.result())
                except OSError as error:
                    # An address that could not be tried may be the one that accepts.
                    if failure is None or own_trouble(error) is not None:
                        failure = error
            for other in won[1:]:
                discard(other)
            if won:
                return won[0]
    finally:
        for task in running:
            task.cancel()
        for ended in await asyncio.gather(*running, return_exceptions=True):
            if not isinstance(ended, BaseException):
                discard(ended)
    assert failure is not None
    raise failure


async def _connect(sockets: Sockets, port: int, address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        await sockets.connect(connection, address, port)
    except BaseException:
        connection.close()
        raise
    return connection
