"""One message after the other from a ROUTER, without asking at each frame whether it is the last.

That question is what reading costs: pyzmq answers it with a ``Frame``, which takes three times
as long as the frame's bytes alone, and by ``getsockopt`` it takes longer still. So every other
frame is read as bytes, and the ``Frame`` read after it tells what that one was: it is one more
of the same message, or the identity that begins the next one, or there is none. Messages come
whole (zmq_socket(3): delivery of multi-part messages is atomic), so where there is none now, the
message had no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import zmq

__all__ = ["Incoming", "waits"]

_NOW = int(zmq.NOBLOCK)
# Nearly all messages that go on after the command have this one; no peer has such a name.
_TASK = b"TASK"
# What libzmq calls a peer that gave itself no name: a zero, and 32 bits (zmq_socket(3), ROUTER).
_ANONYMOUS_BYTES = 5


Read = tuple[bytes, Sequence[bytes], zmq.Frame | None]


class Incoming:
    """Reads messages from a ROUTER; nobody else may."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        # The identity of the next message, where it was read already.
        self._identity = b""
        # Whether the last read() ended because nothing was left.
        self.empty = False

    def read(self, limit: int) -> Iterator[Read]:
        """Yield what waits, ``limit`` messages at most.

        Of each the sender's identity, up to four frames after it, and its last as a Frame, or
        None where none that is known to be this message's was read as one. Further frames are
        let go. Raises zmq.ZMQError where receiving fails.
        """
        receive = self._socket.recv
        self.empty = False
        for count in range(limit):
            # Messages come alone or many at once, and to ask once costs half of an exception.
            if count == 1 and not waits(self._socket):
                self.empty = True
                return
            try:
                identity, self._identity = self._identity or receive(_NOW), b""
            except zmq.Again:
                self.empty = True
                return
            channel = receive(_NOW)
            try:
                frame = receive(_NOW, False)
            except zmq.Again:
                yield identity, (channel,), None
                continue
            command = frame.bytes
            if not frame.more:
                yield identity, (channel, command), frame
                continue
            if command != _TASK and self._is_identity(frame):
                yield identity, (channel,), None
                continue
            task_id = receive(_NOW)
            try:
                frame = receive(_NOW, False)
            except zmq.Again:
                yield identity, (channel, command, task_id), None
                continue
            state = frame.bytes
            if frame.more:
                if self._is_identity(frame):
                    yield identity, (channel, command, task_id), None
                    continue
                while frame.more:
                    frame = receive(_NOW, False)
            yield identity, (channel, command, task_id, state), frame

    def _is_identity(self, frame: zmq.Frame) -> bool:
        """Tell whether a frame with more after it begins a message, and keep it if so."""
        data = frame.bytes
        if data[:1] == b"\0":
            found = len(data) == _ANONYMOUS_BYTES
        else:
            name = _sender_name(frame)
            # A string of C, which ends at a zero.
            found = name != b"" and data.partition(b"\0")[0] == name
        if found:
            self._identity = data
        return found


def waits(socket: zmq.Socket[bytes]) -> bool:
    """Whether a message waits at a socket."""
    events = socket.get(zmq.EVENTS)
    assert isinstance(events, int)
    return bool(events & zmq.POLLIN)


def _sender_name(frame: zmq.Frame) -> bytes:
    """Return the name that a frame's sender gave itself, empty where it gave none."""
    try:
        return str(frame.get("Identity")).encode()
    except UnicodeDecodeError as error:
        return error.object
    except zmq.ZMQError:
        return b""
