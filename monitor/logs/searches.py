"""Takes turns at searches: queries that have to look at the messages of all entries.

They run one at a time, so that every other query finds a free connection, and each token waits for
its own searches first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

from monitor.logs.answers import ActionError, ErrorCode

__all__ = ["Searches"]

# Searches of one token that may wait, and of all together.
_MAX_WAITING: Final = 8
_MAX_IN_ALL: Final = 200
_RETRY_AFTER_S: Final = 1.0


class Searches:
    """A queue for each token (or client without one); for the thread of the loop."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # whose turn is first, first
        self._count = 0
        self._busy = False

    @contextlib.asynccontextmanager
    async def turn(self, owner: str) -> AsyncIterator[None]:
        """Wait for a turn, and have it for the block; raises ActionError if too many wait."""
        if self._busy:
            own = self._waiting.setdefault(owner, deque())
            if len(own) >= _MAX_WAITING or self._count >= _MAX_IN_ALL:
                problem = "too many searches are waiting"
                raise ActionError(ErrorCode.RATE_LIMITED, problem, retry_after=_RETRY_AFTER_S)
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            own.append(turn)
            self._count += 1
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._pass_on()
                raise
        self._busy = True
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        """Give the turn to the first search of the next token."""
        while self._waiting:
            owner = next(iter(self._waiting))
            own = self._waiting.pop(owner)
            while own:
                turn = own.popleft()
                self._count -= 1
                if not turn.done():
                    if own:
                        # To the end: others are next.
                        self._waiting[owner] = own
                    turn.set_result(None)
                    return
        self._busy = False
