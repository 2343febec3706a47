"""A receiver of the relay, and what it tells the relay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from monitor.relay.protocol import Message
from monitor.relay.receiver import Receiver

__all__ = ["Telling"]

R = TypeVar("R", bound=Receiver)


class Telling(Generic[R]):
    """A receiver made by ``make``; :attr:`told` has what it tells, in order."""

    def __init__(self, make: Callable[..., R], **more: Any) -> None:
        self.told: list[str] = []
        # The channel whose messages fail.
        self.defect = b""
        self.receiver = make(
            ("127.0.0.1", 0),
            max_frame_bytes=65536,
            batch=lambda: 500,
            deliver=self._deliver,
            delivered=lambda: self.told.append("delivered"),
            brokers_changed=lambda count: self.told.append(f"{count} brokers"),
            **more,
        )

    def _deliver(self, message: Message) -> None:
        self.told.append(message.channel.decode())
        if message.channel == self.defect:
            raise RuntimeError("a defect")

    @property
    def words(self) -> list[str]:
        """The channels of the messages that were delivered."""
        return [word for word in self.told if len(word) == 1]
