"""Waits for plain sockets in the loop.

A check waits once or twice on each of its sockets. The loop's own sock_connect() and sock_recv()
register each with the loop, which costs several times as much as with an epoll. So one epoll has
them all, and the loop watches that one.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket

__all__ = ["Sockets"]

# Handled in one turn of the loop; the rest follows in the next.
_MOST_EVENTS = 32


class Sockets:
    """Connects, sends and receives over sockets that do not block; belongs to the loop's thread.

    The methods raise OSError. The caller bounds the time; cancelling one leaves its socket open.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._loop.add_reader(self._epoll.fileno(), self._on_ready)
        self._waiting: dict[int, asyncio.Future[None]] = {}

    async def connect(self, connection: socket.socket, address: str, port: int) -> None:
        """Connect to a numeric address."""
        number = connection.connect_ex((address, port))
        if number == errno.EINPROGRESS:
            await self._ready(connection, select.EPOLLOUT)
            number = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))

    async def send(self, connection: socket.socket, datagram: bytes) -> None:
        """Send a datagram."""
        while True:
            try:
                connection.send(datagram)
            except BlockingIOError:
                await self._ready(connection, select.EPOLLOUT)
            else:
                return

    async def receive(self, connection: socket.socket, most: int) -> bytes:
        """Return the next bytes that the socket gets, ``most`` at most."""
        while True:
            await self._ready(connection, select.EPOLLIN)
            try:
                return connection.recv(most)
            except BlockingIOError:
                # A datagram with a wrong checksum is dropped only when it is read: select(2), bugs.
                continue

    async def _ready(self, connection: socket.socket, events: int) -> None:
        fd = connection.fileno()
        self._epoll.register(fd, events)
        future = self._waiting[fd] = self._loop.create_future()
        try:
            await future
        finally:
            del self._waiting[fd]
            self._epoll.unregister(fd)

    def _on_ready(self) -> None:
        for fd, _ in self._epoll.poll(0, _MOST_EVENTS):
            future = self._waiting[fd]
            if not future.done():
                future.set_result(None)

    def close(self) -> None:
        """Stop waiting; what waited has been cancelled before."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
