"""The wire format of the recovering protocol, ``recodex.monitor.v2``. Pure functions, no I/O.

Every message is one JSON object with a ``type``; docs/reference/recovering-protocol.md
describes them all. The functions return whole WebSocket frames. Nothing in a frame depends on
the reader: the same bytes go to everyone at one position.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec

from monitor.transport.frames import text_frame
from monitor.validation import decoding_problem

__all__ = [
    "MAX_MESSAGE_BYTES",
    "MAX_SUBSCRIPTIONS",
    "SUBPROTOCOL",
    "After",
    "BadRequest",
    "Leave",
    "Request",
    "Subscribe",
    "decode_request",
    "end_frame",
    "error_frame",
    "feed_frame",
    "gap_frame",
    "message_frame",
    "message_head",
    "messages_frame",
    "subscribed_frame",
]

SUBPROTOCOL = "recodex.monitor.v2"
# What a client may send in one message, and to how many channels it may subscribe at once.
MAX_MESSAGE_BYTES = 8192
MAX_SUBSCRIPTIONS = 1000

_MAX_NAME_BYTES = 4096

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=_MAX_NAME_BYTES)]


class After(msgspec.Struct, frozen=True):
    """What a client has: the first ``seq`` messages of this epoch."""

    epoch: Annotated[str, msgspec.Meta(max_length=100)]
    seq: Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Subscribe(msgspec.Struct, frozen=True, tag="subscribe", tag_field="type"):
    """A request for a channel: everything that is kept, or what follows ``after``."""

    channel: _Name
    after: After | None = None


class Leave(msgspec.Struct, frozen=True, tag="leave", tag_field="type"):
    """A request to end a subscription."""

    channel: _Name


Request = Subscribe | Leave

_decode = msgspec.json.Decoder(Request).decode
_encode = msgspec.json.Encoder().encode


class BadRequest(Exception):  # noqa: N818 - it never leaves the part
    """What a client sent is not a request; the text says why."""

    @property
    def frame(self) -> bytes:
        """The answer to the client."""
        return error_frame("bad-request", str(self)[:200])


def decode_request(data: bytes) -> Request:
    """Decode what a client sent, or raise BadRequest."""
    try:
        request: Request = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(decoding_problem(error)) from None
    try:
        name = request.channel.encode()
    except UnicodeEncodeError:
        raise BadRequest("a channel's name is not Unicode text") from None
    if len(name) > _MAX_NAME_BYTES:
        raise BadRequest(f"a channel's name is longer than {_MAX_NAME_BYTES} bytes")
    return request


def message_head(channel: bytes, epoch: str) -> bytes:
    """Return the part of a frame that is the same for all messages of a channel."""
    return b'"channel":%b,"epoch":%b,"seq":' % (_encode(channel.decode()), _encode(epoch))


def message_frame(head: bytes, seq: int, at: float, text: bytes | bytearray) -> bytes:
    """Return the frame of a channel's ``seq``-th message (from 1), with its JSON text.

    ``at`` is when the relay received it, in s since the (Unix) epoch.
    """
    return text_frame(
        b'{"type":"message",%b%d,"time":%.3f,"data":%b}' % (head, seq, at, bytes(text))
    )


def messages_frame(
    head: bytes, seq: int, times: Sequence[float], texts: Iterable[bytes | bytearray]
) -> bytes:
    """Return one frame of several messages in a row, of which ``seq`` is the first.

    ``times`` are when the relay received them, at least one, in s since the (Unix) epoch.
    """
    first = round(times[0] * 1000)
    return text_frame(
        b'{"type":"messages",%b%d,"time":%.3f,"ms":%b,"data":[%b]}'
        % (
            head,
            seq,
            first / 1000,
            _encode([round(at * 1000) - first for at in times]),
            b",".join(texts),
        )
    )


def subscribed_frame(
    channel: bytes, epoch: str, seq: int, recovered: bool | None, known: bool = True
) -> bytes:
    """Return the answer to a subscription: message ``seq + 1`` of ``epoch`` comes next.

    ``recovered`` is omitted, as None, for a request without ``after``; ``known`` if true, so that
    only the answer for a channel without any message so far has it.
    """
    fields: dict[str, Any] = {"epoch": epoch, "seq": seq}
    if recovered is not None:
        fields["recovered"] = recovered
    if not known:
        fields["known"] = False
    return _frame("subscribed", channel, fields)


def end_frame(kind: str, channel: bytes, epoch: str, seq: int, reason: str = "") -> bytes:
    """Return the notice of a channel's end after ``seq`` messages: ``finished`` or ``failed``."""
    fields: dict[str, Any] = {"epoch": epoch, "seq": seq}
    if reason:
        fields["reason"] = reason
    return _frame(kind, channel, fields)


def feed_frame(state: str, brokers: int, at: float) -> bytes:
    """Return the notice that the feed is ``up`` or ``down``, or that a broker is ``lost``."""
    return _frame("feed", None, {"state": state, "brokers": brokers, "time": round(at, 3)})


def gap_frame(channel: bytes, epoch: str, seq: int, since: float, until: float | None) -> bytes:
    """Return the notice that the feed was lost after message ``seq``, ``since`` to ``until``.

    Without ``until`` it is still lost. Times are s since the (Unix) epoch.
    """
    fields = {
        "state": "gap",
        "epoch": epoch,
        "seq": seq,
        "since": round(since, 3),
        "until": None if until is None else round(until, 3),
    }
    return _frame("feed", channel, fields)


def error_frame(code: str, message: str, channel: str | None = None) -> bytes:
    """Return the answer to a request that cannot be met."""
    fields = {"code": code, "message": message}
    return _frame("error", None if channel is None else channel.encode(), fields)


def _frame(kind: str, channel: bytes | None, fields: dict[str, Any]) -> bytes:
    head: dict[str, Any] = {"type": kind}
    if channel is not None:
        head["channel"] = channel.decode()
    return text_frame(_encode(head | fields))
