"""ZeroMQ's wire protocol as a ROUTER speaks it, without security and without I/O.

libzmq lets each peer choose the identity that its answers go to, and keeps an unfinished message
of any number of frames in memory. Here a connection is the identity, and all is bounded.

ZMTP 3: https://rfc.zeromq.org/spec/23/ and https://rfc.zeromq.org/spec/37/ (PING, PONG). Its
predecessors: https://rfc.zeromq.org/spec/13/ and https://rfc.zeromq.org/spec/15/.
"""

from __future__ import annotations

import math
import struct
from collections import deque
from collections.abc import Sequence
from typing import Final

__all__ = ["Zmtp", "ZmtpError", "hello", "message"]

_MORE: Final = 1
_LONG: Final = 2
_COMMAND: Final = 4
_GREETING_BYTES: Final = 64
_SIGNATURE_BYTES: Final = 10
_NULL: Final = b"NULL".ljust(20, b"\0")
_ROUTER: Final = 6
_MAX_COMMAND_BYTES: Final = 1024
_MAX_CONTEXT_BYTES: Final = 16
_MAX_IDENTITY_BYTES: Final = 255
# Frames of a message that are kept.
_KEPT_FRAMES: Final = 4
# Socket types that may connect to a ROUTER.
_PEERS: Final = frozenset((b"DEALER", b"REQ", b"ROUTER"))


def _command(name: bytes, content: bytes) -> bytes:
    body = bytes((len(name),)) + name + content
    return bytes((_COMMAND, len(body))) + body


def _property(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + struct.pack("!I", len(value)) + value


def _signature(identity: bytes) -> bytes:
    # To a peer of ZMTP 1.0 it is the head of a frame with the identity.
    return struct.pack("!BQB", 0xFF, len(identity) + 1, 0x7F)


def _after_signature(identity: bytes) -> bytes:
    """Return what a peer of ZMTP 3 gets after signature and version."""
    properties = _property(b"Socket-Type", b"ROUTER") + _property(b"Identity", identity)
    return b"\x01" + _NULL + bytes(32) + _command(b"READY", properties)


def hello(identity: bytes = b"") -> bytes:
    """Return what a server sends that expects peers of ZMTP 3 only."""
    return _signature(identity) + b"\x03" + _after_signature(identity)


class ZmtpError(Exception):
    """The peer breaks the protocol, or its limits; the text says how."""


def message(frames: Sequence[bytes]) -> bytes:
    """Return a message as bytes to send to a peer of ZMTP 3."""
    found = bytearray()
    for number, frame in enumerate(frames, 1):
        flags = _MORE if number < len(frames) else 0
        if len(frame) > 255:
            found += struct.pack("!BQ", flags | _LONG, len(frame))
        else:
            found += bytes((flags, len(frame)))
        found += frame
    return bytes(found)


class Zmtp:
    """Reads what one peer sends.

    Of a message the first four frames are kept. One of more than ``max_frames``, or with more
    than ``max_message_bytes``, is a fault; without these limits the frames that are not kept cost
    nothing. With ``old_peers`` it also reads ZMTP 1.0 and 2.0, whose peers can only be sent
    ``identity``.
    """

    def __init__(
        self,
        *,
        max_frame_bytes: int,
        max_message_bytes: float = math.inf,
        max_frames: float = math.inf,
        identity: bytes = b"",
        old_peers: bool = False,
    ) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._max_message_bytes = max_message_bytes
        self._max_frames = max_frames
        self._limited = min(max_message_bytes, max_frames) < math.inf
        self._own_identity = identity
        self._old_peers = old_peers
        # The beginning of something incomplete, and how long it is at least when complete.
        self._pieces: list[bytes] = []
        self._held = 0
        self._wanted = 0
        self._versioned = False
        # The major version of the peer's protocol, 0 before its greeting.
        self._version = 0
        self._frames: list[bytes] = []
        self._skipped = 0
        self._size = 0
        self.ready = False
        """Whether the handshake is complete."""
        self.identity = b""
        """The name that the peer set for itself."""
        self.messages: deque[list[bytes]] = deque()
        """Complete messages, to be taken out."""
        self.outgoing = bytearray(_signature(identity) if old_peers else hello(identity))
        """Bytes to send to the peer."""

    @property
    def held_bytes(self) -> int:
        """How many bytes of unfinished messages are in memory."""
        return self._held + sum(map(len, self._frames))

    def receive(self, data: bytes) -> None:
        """Read bytes from the peer: the fewer, the shorter it takes. Raises ZmtpError."""
        if self._pieces:
            self._pieces.append(data)
            self._held += len(data)
            if self._held < self._wanted:
                return
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._held = 0
        at = 0
        if not self._version:
            at = self._greet(data)
        if self._version:
            at = self._read_old(data, at) if self._version == 1 else self._read(data, at)
        if at < len(data):
            self._pieces.append(data[at:])
            self._held = len(data) - at

    def _greet(self, data: bytes) -> int:
        """Read the greeting; return how many bytes it has, 0 if it is not complete."""
        size = len(data)
        self._wanted = size + 1
        if data[:1] != b"\xff" or (size >= _SIGNATURE_BYTES and not data[9] & 1):
            return self._greet_first(data)
        if size < _SIGNATURE_BYTES:
            return 0
        if self._old_peers and not self._versioned:
            self._versioned = True
            self.outgoing += b"\x03"
        if size == _SIGNATURE_BYTES:
            return 0
        if data[10] < 3:
            return self._greet_second(data)
        if size < _GREETING_BYTES:
            return 0
        mechanism = data[12:32].rstrip(b"\0")
        if mechanism != b"NULL":
            raise ZmtpError(f"the mechanism {mechanism.decode('ascii', 'replace')!r}, not NULL")
        if self._old_peers:
            self.outgoing += _after_signature(self._own_identity)
        self._version = 3
        return _GREETING_BYTES

    def _greet_first(self, data: bytes) -> int:
        """Read the greeting of ZMTP 1.0: a frame with the identity."""
        head, size = _old_size(data)
        flags = data[head : head + 1]
        fits = 0 < size <= _MAX_IDENTITY_BYTES + 1 or not head
        if not self._old_peers or not fits or flags not in (b"", b"\0"):
            raise ZmtpError("not ZeroMQ, or a version before 2")
        if not head or len(data) < head + size:
            return 0
        self.identity = data[head + 1 : head + size]
        self.outgoing += self._own_identity
        self._version, self.ready = 1, True
        return head + size

    def _greet_second(self, data: bytes) -> int:
        """Read the greeting of ZMTP 2.0: the socket's type, and a frame with the identity."""
        if not self._old_peers or data[10] != 1:
            raise ZmtpError("a version of ZeroMQ before 4")
        if len(data) < 14:
            return 0
        end = 14 + data[13]
        if data[12]:
            raise ZmtpError("a damaged greeting")
        if len(data) < end:
            return 0
        self.identity = data[14:end]
        identity = self._own_identity
        self.outgoing += bytes((_ROUTER, 0, len(identity))) + identity
        self._version, self.ready = 2, True
        return end

    def _read(self, data: bytes, at: int) -> int:
        """Read the complete frames; return where the rest begins."""
        size = len(data)
        frames = self._frames
        while at + 2 <= size:
            flags, length, start = data[at], data[at + 1], at + 2
            if flags > _MORE:
                if flags > 7 or flags & 5 == 5 or (flags & _COMMAND and self._version == 2):
                    raise ZmtpError("a frame with unknown flags")
                if flags & _LONG:
                    start = at + 9
                    if start > size:
                        self._wanted = 9
                        return at
                    length = int.from_bytes(data[at + 1 : start])
            if length > (_MAX_COMMAND_BYTES if flags & _COMMAND else self._max_frame_bytes):
                raise ZmtpError(f"a frame of {length} bytes")
            end = start + length
            if end > size:
                self._wanted = end - at
                return at
            at = end
            if flags & _COMMAND:
                self._obey(data[start:end])
                continue
            if not self.ready:
                raise ZmtpError("a message before READY")
            if len(frames) < _KEPT_FRAMES:
                frames.append(data[start:end])
            else:
                self._skipped += 1
            if self._limited:
                self._check(length)
            if not flags & _MORE:
                frames = self._finish()
        self._wanted = 2
        return at

    def _read_old(self, data: bytes, at: int) -> int:
        """As :meth:`_read`, of ZMTP 1.0."""
        while at < len(data):
            head, size = _old_size(data[at : at + 9])
            if not head:
                self._wanted = 9
                return at
            if not size:
                raise ZmtpError("a frame without flags")
            if size - 1 > self._max_frame_bytes:
                raise ZmtpError(f"a frame of {size - 1} bytes")
            start, end = at + head + 1, at + head + size
            if end > len(data):
                self._wanted = end - at
                return at
            if len(self._frames) < _KEPT_FRAMES:
                self._frames.append(data[start:end])
            else:
                self._skipped += 1
            if self._limited:
                self._check(end - start)
            if not data[start - 1] & _MORE:
                self._finish()
            at = end
        self._wanted = 1
        return at

    def _check(self, frame_bytes: int) -> None:
        """Raise ZmtpError if a message is too long with this frame."""
        self._size += frame_bytes
        if len(self._frames) + self._skipped > self._max_frames:
            raise ZmtpError(f"a message of more than {self._max_frames} frames")
        if self._size > self._max_message_bytes:
            raise ZmtpError(f"a message of more than {self._max_message_bytes} bytes")

    def _finish(self) -> list[bytes]:
        """Take a complete message; return the frames of the next one."""
        self.messages.append(self._frames)
        self._frames = []
        self._skipped = self._size = 0
        return self._frames

    def _obey(self, body: bytes) -> None:
        """Do what a command asks for."""
        end = 1 + (body[0] if body else 0)
        name, content = body[1:end], body[end:]
        if name == b"READY" and not self.ready:
            properties = _properties(content)
            # libzmq, too, takes a peer that does not say its type.
            if properties.get(b"socket-type", b"DEALER") not in _PEERS:
                raise ZmtpError("a socket of another type than DEALER, REQ or ROUTER")
            self.identity = properties.get(b"identity", b"")[:_MAX_IDENTITY_BYTES]
            self.ready = True
        elif name == b"PING" and self.ready:
            self.outgoing += _command(b"PONG", content[2 : 2 + _MAX_CONTEXT_BYTES])
        elif not (name and self.ready):
            raise ZmtpError("an unexpected command")
        # Others, such as SUBSCRIBE, mean nothing to a ROUTER.


def _old_size(data: bytes) -> tuple[int, int]:
    """Return the bytes of a frame's size in ZMTP 1.0, 0 if they are not complete, and the size."""
    if data[:1] != b"\xff":
        return len(data[:1]), data[0] if data else 0
    return (9, int.from_bytes(data[1:9])) if len(data) >= 9 else (0, 0)


def _properties(content: bytes) -> dict[bytes, bytes]:
    """Return the metadata of READY, by names in lower case."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(content):
        end = at + 1 + content[at]
        if end + 4 > len(content):
            raise ZmtpError("damaged metadata")
        (size,) = struct.unpack_from("!I", content, end)
        if end + 4 + size > len(content):
            raise ZmtpError("damaged metadata")
        found[content[at + 1 : end].lower()] = content[end + 4 : end + 4 + size]
        at = end + 4 + size
    return found
