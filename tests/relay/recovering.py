"""A client of the recovering protocol by hand: what it sends and gets is plain JSON."""

from __future__ import annotations

import json
from typing import Any

from monitor.relay.protocol_v2 import SUBPROTOCOL
from monitor.transport.frames import HEADER_BYTES
from tests.relay.conftest import Relay


class RecoveringClient:
    """One connection that speaks ``recodex.monitor.v2``."""

    def __init__(self, relay: Relay) -> None:
        self.connection = relay.client(None, subprotocols=[SUBPROTOCOL])
        assert self.connection.subprotocol == SUBPROTOCOL
        self._rest: list[dict[str, Any]] = []
        # How many messages came in each frame that had several.
        self.batches: list[int] = []
        self.feed = self.receive()

    def send(self, **message: Any) -> None:
        self.connection.send(json.dumps(message))

    def receive(self) -> dict[str, Any]:
        """Return the next message, each of those that came in one frame as if it came alone."""
        if self._rest:
            return self._rest.pop(0)
        message: dict[str, Any] = json.loads(self.connection.recv(timeout=60))
        self._rest = one_by_one(message)
        if message["type"] == "messages":
            self.batches.append(len(self._rest))
            assert len(self._rest) > 1
        return self._rest.pop(0)

    def subscribe(self, channel: str, after: tuple[str, int] | None = None) -> dict[str, Any]:
        """Subscribe and return the answer."""
        how = {} if after is None else {"after": {"epoch": after[0], "seq": after[1]}}
        self.send(type="subscribe", channel=channel, **how)
        answer = self.receive()
        assert answer["type"] == "subscribed", answer
        assert answer["channel"] == channel
        return answer

    def until_end(self) -> list[dict[str, Any]]:
        """Return the messages up to a channel's end, that included."""
        got = [self.receive()]
        while got[-1]["type"] not in ("finished", "failed"):
            got.append(self.receive())
        return got


def one_by_one(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a message of several messages says as a message each; one as it is."""
    if message["type"] != "messages":
        return [message]
    shared = {key: message[key] for key in ("channel", "epoch")}
    return [
        {
            "type": "message",
            **shared,
            "seq": message["seq"] + number,
            "time": round(message["time"] + ms / 1000, 3),
            "data": data,
        }
        for number, (ms, data) in enumerate(zip(message["ms"], message["data"], strict=True))
    ]


def payload(frame: bytes | bytearray) -> bytes:
    """Return what is in a frame of the relay."""
    return bytes(frame[HEADER_BYTES[frame[1]] :])


def commands(messages: list[dict[str, Any]]) -> list[str]:
    return [
        message["data"].get("task_id", message["data"]["command"])
        for message in messages
        if message["type"] == "message"
    ]
