"""Messages that continue a channel of another relay wait until what that relay published is read.

Otherwise this relay would continue the channel from where it had read it, and a client that had
read more could not resume. To know that it has read all, it publishes a mark for the channel and
waits until it reads that mark. Meanwhile it reads nothing from its brokers, so little waits here.

All brokers wait then, so the waits have a budget. When it is spent, what the other relay published
before the broker moved is read, or this relay reads so late that no wait helps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from monitor.relay.protocol import Message
from monitor.transport.fair import Budget

__all__ = ["Handover"]

# How long (s) messages wait at most, at once, and as a share of the time in the long run: Kafka may
# not answer, and clients of this relay wait, too. Less than the least is not worth a mark.
_PATIENCE_S = 2.0
_SHARE = 0.1
_LEAST_S = 0.1


class Handover:
    """Holds messages back, all in their order; belongs to the loop's thread.

    ``mark`` publishes a mark with a number for a channel, ``hold`` stops reading the brokers,
    ``deliver`` gets each message that has waited, and ``go_on`` is called after the last of them.
    """

    def __init__(
        self,
        *,
        mark: Callable[[bytes, int], None],
        hold: Callable[[], None],
        deliver: Callable[[Message], None],
        go_on: Callable[[], None],
    ) -> None:
        self._mark = mark
        self._hold = hold
        self._deliver = deliver
        self._go_on = go_on
        self._waiting: list[Message] = []
        # Channels whose mark is not read yet, and the number of this wait's marks: those of an
        # earlier wait may still come.
        self._marked: set[bytes] = set()
        self._number = 0
        self._patience: asyncio.TimerHandle | None = None
        self._began = 0.0
        self._budget = Budget()

    @property
    def is_waiting(self) -> bool:
        """Whether messages wait."""
        return self._patience is not None

    def wait(self, message: Message, *, mark: bool) -> bool:
        """Hold a message back, with a ``mark`` for its channel if need be; False if it may not."""
        if self._patience is None:
            loop = asyncio.get_running_loop()
            self._began = loop.time()
            patience_s = _PATIENCE_S - self._used_s(0.0)
            if patience_s < _LEAST_S:
                return False
            self._number += 1
            self._patience = loop.call_later(patience_s, self.end)
            self._hold()
        self._waiting.append(message)
        if mark and message.channel not in self._marked:
            self._marked.add(message.channel)
            self._mark(message.channel, self._number)
        return True

    def read(self, name: bytes, number: int) -> None:
        """Note that the mark of a channel was read."""
        if number == self._number:
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
        loop = asyncio.get_running_loop()
        self._used_s(loop.time() - self._began)
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            try:
                self._deliver(message)
            except Exception as error:  # noqa: BLE001 - the loop reports it; the others follow
                loop.call_exception_handler(
                    {"message": "a message that waited failed", "exception": error}
                )
        self._go_on()

    def _used_s(self, took_s: float) -> float:
        """Count a wait; return how much of the budget is used."""
        now = asyncio.get_running_loop().time()
        self._budget.spend(took_s, now, burst_s=_PATIENCE_S, share=_SHARE)
        return self._budget.used_s
