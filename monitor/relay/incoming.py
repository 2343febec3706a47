"""Messages from a ROUTER, read without asking at each frame whether it is the last.

That question is most of what reading costs: pyzmq answers it with a ``Frame``, which takes three
times as long as the frame's bytes alone, and ``getsockopt`` takes even longer. So every other
frame is read as bytes, and the ``Frame`` after it shows what it was: the ``Frame`` belongs to the
same message, or is the identity that begins the next one, or there is none. ZeroMQ delivers
whole messages (zmq_socket(3): delivery of multi-part messages is atomic), so if there is no
frame now, the message was complete.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import zmq

__all__ = ["Incoming", "waits"]

_NOW = int(zmq.NOBLOCK)
# Nearly all messages with frames after the command have this command; no peer has this name.
_TASK = b"TASK"
# The identity of a peer that set none: a zero byte and 32 bits (zmq_socket(3), ROUTER).
_ANONYMOUS_BYTES = 5


Read = tuple[bytes, Sequence[bytes], zmq.Frame | None]


class Incoming:
    """Reads messages from a ROUTER; nothing else may read from it."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        # The identity of the next message, if it was read already.
        self._identity = b""
        # Whether the last read() ended because nothing was left.
        self.empty = False

    def read(self, limit: int) -> Iterator[Read]:
        """Yield the messages that wait, ``limit`` at most.

        Yields the sender's identity, up to four frames after it, and the last one as a Frame, or
        None if no Frame was read that certainly belongs to the message. Further frames are
        dropped. Raises zmq.ZMQError if receiving fails.
        """
        receive = self._socket.recv
        self.empty = False
        for count in range(limit):
            # Messages come alone or many at once, and asking costs half as much as an exception.
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
        """Return whether a frame with more after it begins a message, and keep it if it does."""
        data = frame.bytes
        if data[:1] == b"\0":
            found = len(data) == _ANONYMOUS_BYTES
        else:
            name = _sender_name(frame)
            # A C string, which ends at a zero byte.
            found = name != b"" and data.partition(b"\0")[0] == name
        if found:
            self._identity = data
        return found


def waits(socket: zmq.Socket[bytes]) -> bool:
    """Return whether a message waits at a socket."""
    events = socket.get(zmq.EVENTS)
    assert isinstance(events, int)
    return bool(events & zmq.POLLIN)


def _sender_name(frame: zmq.Frame) -> bytes:
    """Return the identity that a frame's sender set for itself, empty if it set none."""
    try:
        return str(frame.get("Identity")).encode()
    except UnicodeDecodeError as error:
        return error.object
    except zmq.ZMQError:
        return b""
