"""Frames in, JSON and WebSocket frames out."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from monitor.relay.protocol import Malformed, Message, decode
from monitor.transport.frames import PING, text_frame

texts = st.text().filter(lambda text: "\ud800" not in text)
names = st.text(min_size=1)


def _encodable(text: str) -> bytes:
    return text.encode("utf-8", "replace")


@given(names, names, st.lists(texts, max_size=5))
def test_text_is_what_json_dumps_gives_for_the_keys_present(
    channel: str, command: str, rest: list[str]
) -> None:
    frames = [_encodable(text) for text in (channel, command, *rest)]
    message = decode(frames)
    decoded = [frame.decode() for frame in frames[1:]]
    expected = json.dumps(
        dict(zip(["command", "task_id", "task_state"], decoded, strict=False)), sort_keys=True
    )
    assert _text(message) == expected
    assert message.channel == frames[0]
    assert message.command == frames[1]


def test_text_of_a_task_to_the_byte() -> None:
    message = decode([b"student_1", b"TASK", b"t1", b"COMPLETED"])
    assert _text(message) == '{"command": "TASK", "task_id": "t1", "task_state": "COMPLETED"}'


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([], "frames"),
        ([b"channel"], "frames"),
        ([b"", b"STARTED"], "empty"),
        ([b"channel", b""], "empty"),
        ([b"\xff", b"STARTED"], "encoding"),
        ([b"channel", b"\xc3("], "encoding"),
        ([b"channel", b"TASK", b"\xff", b"COMPLETED"], "encoding"),
        ([b"channel", b"TASK", b"t", b"\xed\xa0\x80"], "encoding"),
        ([b"channel", b"TASK", b"t" * 100 + b"\xff"], "encoding"),
    ],
)
def test_malformed_messages_are_told_apart(frames: list[bytes], reason: str) -> None:
    with pytest.raises(Malformed) as caught:
        decode(frames)
    assert caught.value.reason == reason


@given(st.lists(st.binary(max_size=20), max_size=7))
def test_any_frames_decode_or_are_malformed(frames: list[bytes]) -> None:
    try:
        message = decode(frames)
    except Malformed:
        return
    assert json.loads(_text(message))["command"] == frames[1].decode()


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70000])
def test_frames_are_what_the_library_parses(size: int) -> None:
    payload = b"x" * size
    frame = _parse(text_frame(payload))
    assert (frame.opcode, frame.fin, bytes(frame.data)) == (Opcode.TEXT, True, payload)


def test_ping_is_what_the_library_parses() -> None:
    frame = _parse(PING)
    assert (frame.opcode, bytes(frame.data)) == (Opcode.PING, b"")


def _text(message: Message) -> str:
    return bytes(_parse(message.frame).data).decode()


def _parse(data: bytes) -> Frame:
    reader = StreamReader()
    reader.feed_data(data)
    parser = Frame.parse(reader.read_exact, mask=False, max_size=None)
    with pytest.raises(StopIteration) as stop:
        next(parser)
    assert not reader.buffer, "bytes are left over"
    return stop.value.value  # type: ignore[no-any-return]
