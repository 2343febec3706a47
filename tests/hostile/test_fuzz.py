"""Whatever bytes come, in whatever pieces: no defect, and the same messages."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame
from websockets.http11 import Request, Response

from monitor.transport.websocket import WebSocketConnection
from tests.hostile.attacks import masked, upgrade


class Pipe:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """The other direction stays open."""

    pause_reading = resume_reading = write_eof

    def get_extra_info(self, _: str) -> None:
        return None


class Taking(WebSocketConnection):
    """Accepts, and keeps what it takes."""

    def __init__(self) -> None:
        super().__init__(max_message_bytes=1000)
        self.taken: list[tuple[int, bytes]] = []

    def answer(self, request: Request) -> Response:
        return self.protocol.accept(request)

    def opened(self) -> None:
        """Nothing to send."""

    def take(self, frame: Frame) -> None:
        self.taken.append((frame.opcode, bytes(frame.data)))


def outcome(data: bytes, cuts: list[int]) -> tuple[list[tuple[int, bytes]], bytes]:
    """Feed ``data`` in pieces, and return what was taken and what was answered before a Date."""

    async def run() -> tuple[list[tuple[int, bytes]], bytes]:
        loop = asyncio.get_running_loop()
        defects: list[Any] = []
        loop.set_exception_handler(lambda _, context: defects.append(context))
        connection, pipe = Taking(), Pipe()
        transport: Any = pipe
        connection.connection_made(transport)
        bounds = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
        for start, stop in itertools.pairwise(bounds):
            if not pipe.closed:
                connection.feed(data[start:stop])
            while connection.has_work and not connection.is_blocked and not pipe.closed:
                await asyncio.sleep(0)
        connection.connection_lost(None)
        assert not defects
        return connection.taken, pipe.written.partition(b"\r\n\r\n")[2]

    return asyncio.run(run())


FRAMES = st.builds(
    lambda opcode, data, fin: masked(opcode, data, fin=fin),
    st.sampled_from([0, 1, 2, 3, 8, 9, 10, 15]),
    st.binary(max_size=200),
    st.booleans(),
)
CUTS = st.lists(st.integers(0, 10_000), max_size=20)


@given(frames=st.lists(FRAMES, max_size=20), cuts=CUTS)
def test_frames_mean_the_same_in_whatever_pieces_they_come(
    frames: list[bytes], cuts: list[int]
) -> None:
    data = upgrade() + b"".join(frames)
    assert outcome(data, cuts)[0] == outcome(data, [])[0]


@given(data=st.binary(max_size=3000), cuts=CUTS, handshake=st.booleans())
def test_no_bytes_are_a_defect(data: bytes, cuts: list[int], handshake: bool) -> None:
    outcome((upgrade() if handshake else b"") + data, cuts)
