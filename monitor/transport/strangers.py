"""Bounds the connections of a ZeroMQ socket that delivered nothing yet.

libzmq does not limit connections, and with CURVE each has half a minute to show a valid key. So
this module closes some from outside, by the descriptors that the socket's monitor tells.
"""

from __future__ import annotations

import contextlib
import logging
import socket

import zmq

from monitor.log_limits import RateLimitedLog
from monitor.transport.crowds import Crowds

__all__ = ["Strangers", "connection_of", "cut_off"]


class Strangers:
    """Connections without a message, ``most`` at most: the host with most loses the newest.

    So a peer that says little, but was there before, keeps its connection.
    """

    def __init__(self, logger: logging.Logger, most: int) -> None:
        self._log = RateLimitedLog(logger)
        self._most = most
        self._crowds: Crowds[int] = Crowds()

    def accepted(self, descriptor: int) -> None:
        """Count a connection, and close one if there are too many."""
        crowds = self._crowds
        crowds.add(descriptor, _host(descriptor))
        if len(crowds) > self._most:
            newest = next(reversed(crowds.largest()))
            crowds.discard(newest)
            text = "closing a ZeroMQ connection of %s: too many that say nothing"
            self._log.warning("strangers", text, _host(newest))
            cut_off(newest)

    def heard(self, frame: zmq.Frame | None) -> None:
        """Note that a message came, with this frame."""
        if frame is not None and len(self._crowds):
            with contextlib.suppress(zmq.ZMQError, ValueError):
                self.gone(int(frame.get(zmq.SRCFD)))

    def gone(self, descriptor: int) -> None:
        """Count a connection out."""
        self._crowds.discard(descriptor)


def connection_of(descriptor: int) -> socket.socket | None:
    """Return a connection by its descriptor, which stays libzmq's; detach it."""
    try:
        return socket.socket(fileno=descriptor)
    except OSError:
        return None


def cut_off(descriptor: int) -> None:
    """End a connection of libzmq's, which notices it."""
    connection = connection_of(descriptor)
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.detach()


def _host(descriptor: int) -> str:
    connection = connection_of(descriptor)
    if connection is None:
        return ""
    try:
        return str(connection.getpeername()[0])
    except OSError:
        return ""
    finally:
        connection.detach()
