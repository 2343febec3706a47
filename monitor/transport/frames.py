"""WebSocket frames as a server sends them: whole and unmasked (RFC 6455, section 5.2). Pure.

A server's frame has no mask, so the same bytes go to every client that must get them.
"""

from __future__ import annotations

__all__ = ["HEADER_BYTES", "PING", "binary_frame", "text_frame"]

# A whole ping without payload (RFC 6455, section 5.5.2); its pong needs no bookkeeping.
PING = b"\x89\x00"
# How many bytes of a server's frame come before its payload, by the frame's second byte.
HEADER_BYTES = bytes([2] * 126 + [4, 10])


def text_frame(payload: bytes) -> bytes:
    """Return a whole text frame around ``payload``."""
    return _frame(0x81, payload)


def binary_frame(payload: bytes) -> bytes:
    """Return a whole binary frame around ``payload``."""
    return _frame(0x82, payload)


def _frame(first: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2) + payload
    return bytes((first, 127)) + size.to_bytes(8) + payload
