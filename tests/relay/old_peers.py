"""Brokers that speak ZMTP 1.0 and 2.0 by hand (rfc.zeromq.org, 13 and 15)."""

from __future__ import annotations

import socket
from collections.abc import Sequence

__all__ = ["OldPeer"]

_DEALER = 5


class OldPeer:
    """A DEALER of ZMTP ``version`` (1 or 2), with an identity or without."""

    def __init__(self, port: int, *, version: int, identity: bytes = b"") -> None:
        self.version = version
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        if version == 1:
            self._socket.sendall(self._frame(identity, more=False))
        else:
            # Signature, revision 1, socket type, and the identity as a frame.
            self._socket.sendall(b"\xff" + bytes(8) + b"\x7f" + b"\x01" + bytes([_DEALER]))
            self._socket.sendall(self._frame(identity, more=False))

    def send(self, *messages: Sequence[bytes]) -> None:
        """Send messages in one segment, as a broker does that has several at once."""
        self._socket.sendall(
            b"".join(
                self._frame(frame, more=number < len(message))
                for message in messages
                for number, frame in enumerate(message, 1)
            )
        )

    def close(self) -> None:
        self._socket.close()

    def _frame(self, data: bytes, *, more: bool) -> bytes:
        if self.version == 1:
            size = len(data) + 1
            head = bytes([size]) if size < 255 else b"\xff" + size.to_bytes(8)
            return head + bytes([more]) + data
        if len(data) < 256:
            return bytes([int(more), len(data)]) + data
        return bytes([int(more) | 2]) + len(data).to_bytes(8) + data
