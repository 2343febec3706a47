"""How a load talks to each server: what is published and how, and what subscribers get."""

from __future__ import annotations

import re
import select
import socket
from collections.abc import Callable, Iterable

from benchmarks import relay_wire as wire

__all__ = ["DIALECTS", "RELAY", "Dialect"]

Receive = Callable[[int], bytes]
# Of the server's own making, in the first message of a channel only.
EPOCH = re.compile(rb',"epoch":"[^"]*"')


class Dialect:
    """The relay's own: ZMTP in, a text frame a message out, and FINISHED ends a channel."""

    http = False  # whether it is published to over HTTP, and so answers
    finishes = True  # whether FINISHED closes the subscribers' connections
    compresses = True  # whether it does so where it accepts the offer
    by_path = False  # whether the handshake is the subscription

    def path(self, channel: str) -> str:
        """Return the path of a subscriber's WebSocket."""
        return "/"

    def subscribe(self, connection: socket.socket, channel: str) -> Receive:
        """Name the channel on an open WebSocket; return what reads from it from now on."""
        connection.send(wire.subscription(channel))
        return connection.recv

    def published(self, channel: str, fields: tuple[str, ...]) -> bytes:
        """Return one message, as :meth:`joined` takes it."""
        return wire.zmtp_message(channel, fields)

    def joined(self, messages: Iterable[bytes]) -> bytes:
        """Return what to send for messages that are published at once."""
        return b"".join(messages)

    def received(self, channel: str, number: int, text: bytes) -> bytes:
        """Return what a subscriber gets for the message of this number, counted from 1."""
        return wire.server_frame(text)


class Nchan(Dialect):
    """nginx's nchan: HTTP in; the path is the channel, which never ends."""

    http = True
    finishes = False
    compresses = False
    by_path = True

    def path(self, channel: str) -> str:
        """Return the path, which names the channel."""
        return f"/sub/{channel}"

    def subscribe(self, connection: socket.socket, channel: str) -> Receive:
        """Do nothing: the path has named the channel."""
        return connection.recv

    def published(self, channel: str, fields: tuple[str, ...]) -> bytes:
        """Return a request of its own, pipelined with the others."""
        return wire.http_publish(channel, fields)


class Centrifugo(Dialect):
    """Centrifugo: HTTP batches in, lines of JSON out, as many in a frame as it likes."""

    http = True
    finishes = False
    _MOST_OF_A_BATCH = 1000

    def path(self, channel: str) -> str:
        """Return the path of its bidirectional protocol."""
        return "/connection/websocket"

    def subscribe(self, connection: socket.socket, channel: str) -> Receive:
        """Connect and subscribe by its protocol, and wait for both answers."""
        connection.sendall(wire.centrifugo_subscription(channel))
        lines, answer = _Lines(connection), b""
        while answer.count(b"\n") < 2 and (data := lines.receive(4096)):
            answer += data
        if b'"subscribe":' not in answer:
            raise ConnectionError(f"{channel}: not subscribed: {answer!r}")
        return lines.receive

    def published(self, channel: str, fields: tuple[str, ...]) -> bytes:
        """Return one command of a batch."""
        return wire.centrifugo_command(channel, fields)

    def joined(self, messages: Iterable[bytes]) -> bytes:
        """Return requests of this many commands, pipelined."""
        commands, size = list(messages), self._MOST_OF_A_BATCH
        batches = (commands[i : i + size] for i in range(0, len(commands), size))
        return b"".join(map(wire.centrifugo_batch, batches))

    def received(self, channel: str, number: int, text: bytes) -> bytes:
        """Return a line."""
        return wire.centrifugo_line(channel, number, text)


class _Lines:
    """Reads the lines in a server's text frames, however it joined them, without the epoch."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._head = b""  # of a frame whose header has not come as a whole
        self._epochs = 0
        self._left = 0  # bytes of a frame whose beginning was read

    def receive(self, size: int) -> bytes:
        """Return text without headers, with a newline at each frame's end; none at the end."""
        while data := self._socket.recv(size):
            if text := self._text(self._head + data):
                if not self._epochs:
                    text, self._epochs = EPOCH.subn(b"", text)
                return text
            select.select([self._socket], [], [], 1.0)  # the rest of a header is on its way
        return b""

    def _text(self, data: bytes) -> bytes:
        pieces, place = [], 0
        while place < len(data):
            if not self._left:
                size = wire.server_frame_size(data, place)
                if size is None:
                    break
                header, self._left = size
                place += header
            piece = data[place : place + self._left]
            self._left -= len(piece)
            place += len(piece)
            pieces.append(piece if self._left else piece + b"\n")
        self._head = data[place:]
        return b"".join(pieces)


RELAY = Dialect()
DIALECTS: dict[str, Dialect] = {"relay": RELAY, "nchan": Nchan(), "centrifugo": Centrifugo()}
