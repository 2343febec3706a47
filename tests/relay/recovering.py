"""A client of the recovering protocol by hand: what it sends and gets is plain JSON."""

from __future__ import annotations

import json
from typing import Any

from monitor.relay.protocol_v2 import SUBPROTOCOL
from tests.relay.conftest import Relay


class RecoveringClient:
    """One connection that speaks ``recodex.monitor.v2``."""

    def __init__(self, relay: Relay) -> None:
        self.connection = relay.client(None, subprotocols=[SUBPROTOCOL])
        assert self.connection.subprotocol == SUBPROTOCOL
        self.feed = self.receive()

    def send(self, **message: Any) -> None:
        self.connection.send(json.dumps(message))

    def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.connection.recv(timeout=20))
        return message

    def subscribe(self, channel: str, after: tuple[str, int] | None = None) -> dict[str, Any]:
        """Subscribe and return the answer."""
        how = {} if after is None else {"after": {"epoch": after[0], "seq": after[1]}}
        self.send(type="subscribe", channel=channel, **how)
        answer = self.receive()
        assert answer["type"] == "subscribed", answer
        assert answer["channel"] == channel
        return answer

    def until_end(self) -> list[dict[str, Any]]:
        """Return what comes up to a channel's end, that included."""
        got = [self.receive()]
        while got[-1]["type"] not in ("finished", "failed"):
            got.append(self.receive())
        return got


def commands(messages: list[dict[str, Any]]) -> list[str]:
    return [
        message["data"].get("task_id", message["data"]["command"])
        for message in messages
        if message["type"] == "message"
    ]
