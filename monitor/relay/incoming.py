"""Messages from a ROUTER, read without asking at each frame whether it is the last.

That question is most of what reading costs: pyzmq answers it with a ``Frame``, which takes three
times as long as the frame's bytes alone, and ``getsockopt`` takes even longer. So every other
frame is read as bytes, and the ``Frame`` after it shows what it was: the ``Frame`` belongs to the
same message, or is the identity that begins the next one, or there is none. ZeroMQ delivers
whole messages (zmq_socket(3): delivery of multi-part messages is atomic), so if there is no
frame now, the message was complete.

An identity is recognised by the name that its sender set for itself, which peers of ZMTP 1.0 and
2.0 do not tell. While such a peer may be connected, every frame is asked
(:attr:`Incoming.careful`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import zmq

__all__ = ["Incoming", "names_its_sender", "waits"]

_NOW = int(zmq.NOBLOCK)
# Nearly all messages with frames after the command have this command; no peer has this name.
_TASK = b"TASK"
# The identity of a peer that set none: a zero byte and 32 bits (zmq_socket(3), ROUTER).
_ANONYMOUS_BYTES = 5
# Channel, command, task id and task state.
_MOST_FRAMES = 4
# Frames that have no meaning, dropped in one turn of the loop.
_DROPPED_AT_ONCE = 1000


Read = tuple[bytes, Sequence[bytes], zmq.Frame | None]


class Incoming:
    """Reads messages from a ROUTER; nothing else may read from it."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        # The identity of the next message, if it was read already.
        self._identity = b""
        # Whether the last read() ended because nothing was left.
        self.empty = False
        # Whether to ask every frame if more follow.
        self.careful = False
        # Whether the last message has very many frames more, which have no meaning.
        self.dropping = False

    def read(self, limit: int) -> Iterator[Read]:
        """Yield the messages that wait, ``limit`` at most.

        Yields the sender's identity, up to four frames after it, and the last one as a Frame, or
        None if no Frame was read that certainly belongs to the message. Further frames are
        dropped. Raises zmq.ZMQError if receiving fails.
        """
        receive = self._socket.recv
        self.empty = False
        if self.dropping and self._drop(receive(_NOW, False)).more:
            return
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
            if self.careful:
                yield identity, *self._rest()
                if self.dropping:
                    return
                continue
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
                frame = self._drop(frame)
            yield identity, (channel, command, task_id, state), frame
            if self.dropping:
                return

    def _drop(self, frame: zmq.Frame) -> zmq.Frame:
        """Drop the frames after this one, up to a number; return the last of them."""
        for _ in range(_DROPPED_AT_ONCE):
            if not frame.more:
                break
            frame = self._socket.recv(_NOW, False)
        self.dropping = frame.more
        return frame

    def _rest(self) -> tuple[list[bytes], zmq.Frame]:
        """Return the frames after an identity, four at most, and the last of all."""
        frame = self._socket.recv(_NOW, False)
        frames = [frame.bytes]
        while frame.more and len(frames) < _MOST_FRAMES:
            frame = self._socket.recv(_NOW, False)
            frames.append(frame.bytes)
        return frames, self._drop(frame)

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


def names_its_sender(frame: zmq.Frame) -> bool:
    """Return whether a frame tells who sent it, as those of ZMTP 3 do (even by an empty name)."""
    try:
        frame.get("Identity")
    except UnicodeDecodeError:
        return True
    except zmq.ZMQError:
        return False
    return True


def _sender_name(frame: zmq.Frame) -> bytes:
    """Return the identity that a frame's sender set for itself, empty if it set none."""
    try:
        return str(frame.get("Identity")).encode()
    except UnicodeDecodeError as error:
        return error.object
    except zmq.ZMQError:
        return b""
