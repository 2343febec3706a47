"""Cuts off ZeroMQ peers that send a message without an end.

libzmq keeps the frames of a message until the last one is there. It limits the size of a frame, but
not their number. So this module looks from outside: the kernel counts the bytes of each connection,
the reader says which connections finished a message, and of those that finished none, the ones with
most bytes are cut off. With CURVE the smallest frame has 35 bytes on the wire, and 64 in memory.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import zmq

from monitor.log_limits import RateLimitedLog
from monitor.settings import address_text
from monitor.transport.strangers import connection_of, cut_off

__all__ = ["LOOK_S", "Unfinished"]

# s between two looks, in which libzmq takes some 5 MB of small frames.
LOOK_S = 0.03
# So much the process may grow before the peers are looked at, and how often they are in any case.
_GROWTH_BYTES = 8 * 1024 * 1024
_LOOK_AT_ALL_S = 1.0
# Peers in one look, which takes 5 microseconds for each.
_PEERS_A_LOOK = 500
# Heartbeats do not count.
_BYTES_A_SECOND = 16.0
# struct tcp_info of linux/tcp.h: tcpi_bytes_received.
_TCP_INFO_BYTES = 136
_RECEIVED_AT = 128
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class _Peer:
    address: tuple[str, int]
    # the kernel's count when it finished its last message, and when (s) that was
    finished_bytes: int
    finished_at: float
    received_bytes: int
    heard: bool = False

    def unfinished_bytes(self, now: float) -> float:
        return (
            self.received_bytes - self.finished_bytes - (now - self.finished_at) * _BYTES_A_SECOND
        )


class Unfinished:
    """Watches the connections of one ROUTER by their descriptors, which its monitor tells."""

    def __init__(
        self,
        logger: logging.Logger,
        *,
        limit_bytes: int,
        total_bytes: int,
        is_read: Callable[[], bool] = lambda: True,
    ) -> None:
        """``limit_bytes`` is more than any message has on the wire, ``total_bytes`` for all.

        Nothing is looked at while messages wait that were finished, and ``is_read`` returns False.
        """
        self._limit_bytes = limit_bytes
        self._total_bytes = total_bytes
        self._is_read = is_read
        self._log = RateLimitedLog(logger)
        self._peers: dict[int, _Peer] = {}
        self._base_bytes = _resident_bytes()
        # Identities that finished a message since the last look at all.
        self.heard: set[bytes] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._next_look = 0.0
        self._looking: list[int] = []

    def start(self) -> None:
        """Look regularly until :meth:`stop`."""
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look_again)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look_again(self) -> None:
        self.start()
        self.look()

    def accepted(self, descriptor: int) -> None:
        """Watch a connection."""
        found = _look(descriptor)
        if found is not None:
            address, received = found
            self._peers[descriptor] = _Peer(address, 0, time.monotonic(), received)

    def gone(self, descriptor: int) -> None:
        """Watch a connection no more."""
        self._peers.pop(descriptor, None)

    def finished(self, identity: bytes, frame: zmq.Frame) -> None:
        """Note that a peer that is not in :attr:`heard` finished a message with this frame."""
        self.heard.add(identity)
        try:
            peer = self._peers.get(int(frame.get(zmq.SRCFD)))
        except (zmq.ZMQError, ValueError):
            return
        if peer is not None:
            peer.heard = True

    def too_long(self, frame: zmq.Frame) -> None:
        """Cut off the peer that sent this frame, in a message of very many."""
        try:
            descriptor = int(frame.get(zmq.SRCFD))
        except (zmq.ZMQError, ValueError):
            return
        if descriptor in self._peers:
            self._cut_off(descriptor, "a message of too many frames")

    def look(self) -> None:
        """Cut off who sends without an end; call it every :data:`LOOK_S`."""
        now, resident = time.monotonic(), _resident_bytes()
        if not self._peers:
            self._base_bytes = resident
        if not self._peers or not self._is_read():
            return
        if not self._looking:
            if resident - self._base_bytes < _GROWTH_BYTES and now < self._next_look:
                return
            self._looking = list(self._peers)
        for descriptor in islice(self._looking, _PEERS_A_LOOK):
            self._look_at(descriptor, now)
        del self._looking[:_PEERS_A_LOOK]
        if self._looking:
            return
        self._next_look = now + _LOOK_AT_ALL_S
        self._base_bytes = resident
        self._judge(now)
        self.heard.clear()

    def _look_at(self, descriptor: int, now: float) -> None:
        peer, found = self._peers.get(descriptor), _look(descriptor)
        if peer is None:
            return
        if found is None or found[0] != peer.address:
            # The notice that it is gone is still to come, and the number may be somebody else's.
            del self._peers[descriptor]
            return
        peer.received_bytes = found[1]
        if peer.heard:
            peer.heard = False
            peer.finished_bytes, peer.finished_at = peer.received_bytes, now

    def _judge(self, now: float) -> None:
        unfinished = sorted(
            ((max(0.0, peer.unfinished_bytes(now)), each) for each, peer in self._peers.items()),
            reverse=True,
        )
        total = sum(count for count, _ in unfinished)
        for count, descriptor in unfinished:
            if count <= self._limit_bytes and total <= self._total_bytes:
                break
            total -= count
            self._cut_off(descriptor, f"{count:.0f} bytes of a message without an end")

    def _cut_off(self, descriptor: int, problem: str) -> None:
        peer = self._peers.pop(descriptor)
        self._log.warning(
            "endless",
            "closing the ZeroMQ connection of %s: %s",
            address_text(peer.address),
            problem,
        )
        cut_off(descriptor)


def _resident_bytes() -> int:
    """Return the resident memory of this process; works with no descriptor left."""
    return int(os.pread(_statm(os.getpid()), 100, 0).split()[1]) * _PAGE_BYTES


@functools.cache
def _statm(pid: int) -> int:
    return os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)


def _look(descriptor: int) -> tuple[tuple[str, int], int] | None:
    """Return the peer's address, and how many bytes came from it; None if it is gone."""
    connection = connection_of(descriptor)
    if connection is None:
        return None
    try:
        address = connection.getpeername()[:2]
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        (received,) = struct.unpack_from("Q", info, _RECEIVED_AT)
    except (OSError, struct.error):
        return None
    else:
        return (address[0], address[1]), int(received)
    finally:
        connection.detach()
