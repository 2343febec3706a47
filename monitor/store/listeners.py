"""The listeners for notifications in this process."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import Iterator

__all__ = ["Listener", "Listeners"]

_BOUND = 10_000  # most payloads that wait for one listener


class Listener:
    """The queue of one listener; :meth:`next` returns payloads in order, None for a gap."""

    def __init__(self) -> None:
        self._payloads: deque[str | None] = deque()
        self._ready = asyncio.Event()

    def tell(self, payload: str | None) -> None:
        """Queue a payload; past the bound, all waiting payloads become one gap."""
        if len(self._payloads) >= _BOUND:
            self._payloads.clear()
            payload = None
        self._payloads.append(payload)
        self._ready.set()

    async def next(self) -> str | None:
        """Wait for the next payload, without a limit, and return it."""
        while not self._payloads:
            self._ready.clear()
            await self._ready.wait()
        return self._payloads.popleft()


class Listeners:
    """All listeners of this process by channel; used in the thread of the loop."""

    def __init__(self) -> None:
        self._by_channel: defaultdict[str, set[Listener]] = defaultdict(set)

    def tell(self, channel: str, payload: str | None) -> None:
        """Queue ``payload`` (None: a gap) for all listeners on ``channel``."""
        for listener in self._by_channel.get(channel, ()):
            listener.tell(payload)

    def channels(self) -> frozenset[str]:
        """Return the channels that have listeners."""
        return frozenset(self._by_channel)

    @contextlib.contextmanager
    def listener(self, channel: str) -> Iterator[Listener]:
        """Register a listener for the duration of the context."""
        listener = Listener()
        self._by_channel[channel].add(listener)
        try:
            yield listener
        finally:
            self._by_channel[channel].discard(listener)
            if not self._by_channel[channel]:
                del self._by_channel[channel]
