"""The benchmarks' loads on the relay notice what a subscriber must not get."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from benchmarks import relay_load, relay_recovery_readers
from benchmarks import relay_wire as wire
from benchmarks.relay_load import Load
from benchmarks.relay_recovery_readers import OLD, RECOVERING
from benchmarks.relay_streams import Channel, StreamError, Subscriber
from monitor.relay.protocol_v2 import (
    message_frame,
    message_head,
    messages_frame,
    subscribed_frame,
)
from monitor.transport.frames import text_frame

CLOSE = b"\x88\x02" + wire.CLOSE_1000
HEAD = b"HTTP/1.1 101 x\r\nSec-WebSocket-Accept: " + wire.ACCEPT + b"\r\n\r\n"


def lost(parts: Sequence[bytes]) -> list[bytes]:
    return [*parts[:7], *parts[8:]]


def repeated(parts: Sequence[bytes]) -> list[bytes]:
    return [*parts[:8], *parts[7:]]


def reordered(parts: Sequence[bytes]) -> list[bytes]:
    return [*parts[:7], parts[8], parts[7], *parts[9:]]


def changed(parts: Sequence[bytes]) -> list[bytes]:
    return [*parts[:7], parts[7].replace(b"COMPLETED", b"COMPLETEB"), *parts[8:]]


def cut_short(parts: Sequence[bytes]) -> list[bytes]:
    return list(parts[:-1])


FAULTS = [lost, repeated, reordered, changed]


class Relay:
    """Answers one subscriber's handshake, and says what it is told to."""

    def __init__(self, said: bytes, *, vanish: bool) -> None:
        self._said, self._vanish = said, vanish
        self.subscribers = socket.create_server(("127.0.0.1", 0))
        self.publishers = socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        publisher, _ = self.publishers.accept()
        with publisher:
            publisher.sendall(bytes(64))
            subscriber, _ = self.subscribers.accept()
            with subscriber:
                subscriber.recv(4096)
                subscriber.sendall(HEAD)
                subscriber.recv(4096)
                subscriber.sendall(self._said)
                if self._vanish:
                    subscriber.close()
                self._over.wait(20)

    def close(self) -> None:
        self._over.set()
        self._thread.join(20)
        self.subscribers.close()
        self.publishers.close()


@pytest.fixture
def read() -> Iterator[Callable[..., None]]:
    """Return a function that lets a load read what a relay says, up to its close."""
    relays: list[Relay] = []

    def read(say: Callable[[list[bytes]], list[bytes]], *, vanish: bool = False) -> None:
        channel = Channel(0, 20, nchan=False)
        stream = channel.plain
        begins = [0, *stream.ends]
        frames = [stream.data[a:b] for a, b in zip(begins, stream.ends, strict=False)]
        relay = Relay(b"".join(say([*frames, CLOSE])), vanish=vanish)
        relays.append(relay)
        ports = (relay.subscribers.getsockname()[1], relay.publishers.getsockname()[1])
        load = Load(os.getpid(), *ports, nchan=False, compression=False)
        subscriber = Subscriber(channel)
        try:
            load.connect([subscriber])
            load.expect(subscriber, len(subscriber.ends), closed=True)
            load.run()
        finally:
            load.publisher.close()
            load.epoll.close()
            subscriber.socket.close()

    yield read
    for relay in relays:
        relay.close()


def test_what_is_right_is_taken(read: Callable[..., None]) -> None:
    read(list)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_load_notices(read: Callable[..., None], fault: Callable[..., list[bytes]]) -> None:
    with pytest.raises(StreamError):
        read(fault)


def test_a_load_notices_an_end_before_the_last_message(read: Callable[..., None]) -> None:
    with pytest.raises(StreamError, match="closed with"):
        read(lambda parts: [*parts[:-2], parts[-1]])
    with pytest.raises(StreamError, match="vanished"):
        read(cut_short, vanish=True)


def test_a_load_notices_that_nothing_more_comes(
    read: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_load, "STALL_S", 0.3)
    with pytest.raises(StreamError, match="still wait"):
        read(cut_short)


def recovering_parts(channel: relay_recovery_readers.Channel, *, joined: bool) -> list[bytes]:
    """Return 20 messages as the relay sends them, alone or two in one."""
    head, texts = message_head(channel.name.encode(), "e"), channel.texts
    if joined:
        return [messages_frame(head, n + 1, [1.0, 2.0], texts[n : n + 2]) for n in range(0, 20, 2)]
    return [message_frame(head, n + 1, 1.0, text) for n, text in enumerate(texts)]


@pytest.mark.parametrize("how", ["old", "alone", "joined"])
@pytest.mark.parametrize("fault", [list, *FAULTS])
def test_readers_of_either_protocol_notice(how: str, fault: Callable[..., list[bytes]]) -> None:
    channel = relay_recovery_readers.Channel(0, 20)
    one = relay_recovery_readers.Subscriber(channel, OLD if how == "old" else RECOVERING)
    if how == "old":
        parts = [text_frame(text) for text in channel.texts]
    else:
        one.take(subscribed_frame(channel.name.encode(), "e", 0, None))
        parts = recovering_parts(channel, joined=how == "joined")
    stream = b"".join(fault(parts))

    def take() -> None:
        # As a socket gives it: in pieces that know nothing of messages.
        for begin in range(0, len(stream), 100):
            one.take(stream[begin : begin + 100])

    if fault is list:
        take()
        assert one.seq == 20
    else:
        with pytest.raises(StreamError):
            take()


def test_a_reader_that_was_cut_off_must_resume_exactly() -> None:
    channel = relay_recovery_readers.Channel(0, 20)
    one = relay_recovery_readers.Subscriber(channel, RECOVERING)
    name = channel.name.encode()
    one.take(subscribed_frame(name, "e", 0, None))
    one.take(recovering_parts(channel, joined=True)[0])
    one.take(subscribed_frame(name, "e", 2, True))
    for wrong in (subscribed_frame(name, "e", 1, True), subscribed_frame(name, "e", 2, False)):
        with pytest.raises(StreamError):
            one.take(wrong)
