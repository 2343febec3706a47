"""Messages that continue a channel of another relay wait until what that relay published is read.

Otherwise this relay would continue the channel from where it had read it, and a client that had
read more could not resume. To know that it has read all, it publishes a mark for the channel and
waits until it reads that mark. Meanwhile it reads nothing from its brokers, so little waits here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from monitor.relay.protocol import Message

__all__ = ["Handover"]

# How long messages wait at most: Kafka may not answer, and clients of this relay wait, too.
_PATIENCE_S = 2.0


class Handover:
    """Holds messages back, all in their order; belongs to the loop's thread.

    ``mark`` publishes a mark for a channel, ``hold`` stops reading the brokers, ``deliver``
    gets each message that has waited, and ``go_on`` is called after the last of them.
    """

    def __init__(
        self,
        *,
        mark: Callable[[bytes], None],
        hold: Callable[[], None],
        deliver: Callable[[Message], None],
        go_on: Callable[[], None],
    ) -> None:
        self._mark = mark
        self._hold = hold
        self._deliver = deliver
        self._go_on = go_on
        self._waiting: list[Message] = []
        # Channels whose mark is not read yet.
        self._marked: set[bytes] = set()
        self._patience: asyncio.TimerHandle | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether messages wait."""
        return self._patience is not None

    def wait(self, message: Message, *, mark: bool) -> None:
        """Hold a message back, with a ``mark`` for its channel if need be."""
        if self._patience is None:
            self._patience = asyncio.get_running_loop().call_later(_PATIENCE_S, self.end)
            self._hold()
        self._waiting.append(message)
        if mark and message.channel not in self._marked:
            self._marked.add(message.channel)
            self._mark(message.channel)

    def read(self, name: bytes) -> None:
        """Note that the mark of a channel was read."""
        self._marked.discard(name)
        if not self._marked:
            self.end()

    def end(self) -> None:
        """Deliver what waits, whatever was read."""
        if self._patience is None:
            return
        self._patience.cancel()
        self._patience = None
        self._marked.clear()
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            self._deliver(message)
        self._go_on()
