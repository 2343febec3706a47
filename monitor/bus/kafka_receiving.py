"""Bounds what kafka-python reads from a socket before it looks at it.

kafka-python 3.0.12 reads until the socket is empty, and only then checks the length that the broker
announced. A server that sends fast enough, by mistake or on purpose, fills the memory.
"""

from __future__ import annotations

import ssl
from typing import Any

from kafka import errors as kafka_errors
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport

__all__ = ["bound_receiving"]

_TURN_BYTES = 1_048_576
_PIECE_BYTES = 65_536
_EMPTY = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def bound_receiving() -> None:
    """Let all connections of this process read 1 MiB at a time."""
    for transport in (KafkaTCPTransport, KafkaSSLTransport):
        # A later version may read in another way.
        if "_sock_recv" in vars(transport):
            transport._sock_recv = _receive


def _receive(transport: Any) -> tuple[bytes, Exception | None]:
    """Return what was received, and the error that ended it, as kafka-python's own method."""
    pieces: list[bytes] = []
    size = 0
    socket = transport._sock
    while size < _TURN_BYTES or _decrypted(socket):
        try:
            piece = socket.recv(_PIECE_BYTES)
        except _EMPTY:
            break
        except (OSError, ValueError) as error:
            return b"".join(pieces), kafka_errors.KafkaConnectionError(error)
        if not piece:
            return b"".join(pieces), kafka_errors.KafkaConnectionError("socket disconnected")
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces), None


def _decrypted(socket: Any) -> bool:
    """Return whether TLS holds bytes of a record that was read: the selector does not see them."""
    return isinstance(socket, ssl.SSLSocket) and socket.pending() > 0
