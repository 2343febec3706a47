"""Finds messages by regular expressions, in bounded time.

Any client that may read sends expressions, and Python's engine may take hours for one. So another
process matches, some hundred messages at a time, each time with a limit; it holds neither the loop
nor a connection to the database meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from monitor.logs.answers import ActionError, ErrorCode
from monitor.matching import ExpressionError, Lane, TooSlowError
from monitor.validation import printable

__all__ = ["MESSAGES", "MESSAGE_BYTES", "Expressions"]

MESSAGES: Final = 1000
"""Messages that are matched at once."""

MESSAGE_BYTES: Final = 256 * 1024
"""Their size at most; a single one may be larger."""

# Time of the processor for one batch: a hundred times what a usual expression takes.
_LIMIT_S: Final = 0.5
# Where the machine has no time for the process.
_PATIENCE_S: Final = 10.0
_RETRY_AFTER_S: Final = 1.0
_TOO_SLOW: Final = (
    "regexp: takes too long on these entries;"
    " begin it with a text instead of .* and do not repeat a repetition"
)


class Expressions:
    """A process that matches, started at the first expression; for the thread of the loop.

    ``limit_s`` is time of the processor, ``patience_s`` how long a call may take.
    """

    def __init__(self, *, limit_s: float = _LIMIT_S, patience_s: float = _PATIENCE_S) -> None:
        self._lane = Lane(limit_s)
        self._patience_s = patience_s

    async def select(self, expression: str, messages: Sequence[str]) -> list[int]:
        """Return the places of the messages in which the expression is found.

        Raises ActionError for an expression that is invalid or takes too long.
        """
        try:
            async with asyncio.timeout(self._patience_s):
                return await self._lane.select(expression, messages)
        except ExpressionError as error:
            problem = f"regexp: not a regular expression: {printable(str(error))}"
            raise ActionError(ErrorCode.BAD_REQUEST, problem) from None
        except TooSlowError:
            raise ActionError(ErrorCode.BAD_REQUEST, _TOO_SLOW) from None
        except TimeoutError:
            problem = "the machine is too busy to look for regular expressions"
            raise ActionError(ErrorCode.UNAVAILABLE, problem, retry_after=_RETRY_AFTER_S) from None
        except OSError as error:
            problem = f"cannot start a process for regular expressions: {error.strerror}"
            raise ActionError(ErrorCode.UNAVAILABLE, problem, retry_after=_RETRY_AFTER_S) from None

    async def verify(self, expression: str) -> None:
        """Raise ActionError for an invalid expression."""
        await self.select(expression, ())

    async def close(self) -> None:
        """End the process."""
        await self._lane.close()
