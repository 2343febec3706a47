"""Messages from a ROUTER, frame by frame.

pyzmq tells only by a ``Frame`` whether more frames follow, which takes three times as long as the
frame's bytes alone. Guessing it from the frames after it is no way out: a frame may hold anything,
also what looks like the identity of a peer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import zmq

__all__ = ["Incoming", "waits"]

_NOW = int(zmq.NOBLOCK)
# Channel, command, task id and task state.
_MOST_FRAMES = 4
# Frames that have no meaning, dropped in one turn of the loop.
_DROPPED_AT_ONCE = 1000


Read = tuple[bytes, Sequence[bytes], zmq.Frame]


class Incoming:
    """Reads messages from a ROUTER; nothing else may read from it."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        # Whether the last read() ended because nothing was left.
        self.empty = False
        # Whether the last message has very many frames more, which have no meaning.
        self.dropping = False

    def read(self, limit: int) -> Iterator[Read]:
        """Yield the messages that wait, ``limit`` at most.

        Yields the sender's identity, up to four frames after it, and the last one as a Frame.
        Further frames are dropped. Raises zmq.ZMQError if receiving fails.
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
                identity = receive(_NOW)
            except zmq.Again:
                self.empty = True
                return
            yield identity, *self._rest()
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


def waits(socket: zmq.Socket[bytes]) -> bool:
    """Return whether a message waits at a socket."""
    events = socket.get(zmq.EVENTS)
    assert isinstance(events, int)
    return bool(events & zmq.POLLIN)
