"""Times as clients write them: s or ms since the epoch, or ISO 8601. Pure."""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import Final

__all__ = ["seconds_of"]

# As seconds, this is the year 5138; as milliseconds, it is in 1973. No entry of a running system
# is from either, so a number says by its size which of the two it is.
_LEAST_MS: Final = 1e11
_LONGEST: Final = 64
_LOST_PLUS: Final = re.compile(r"(:\d\d(?:\.\d+)?) (\d\d:?\d\d)\Z")


def seconds_of(time: float | str) -> float:
    """Return a time in s since the epoch; raises ValueError with what is wrong with it.

    A number from 100,000,000,000 on is in ms. A text is ISO 8601 with an offset from UTC, or a
    number.
    """
    if isinstance(time, str):
        return _parsed(time)
    if not math.isfinite(time):
        raise ValueError("is not finite")
    return time / 1000 if abs(time) >= _LEAST_MS else float(time)


def _parsed(text: str) -> float:
    if len(text) > _LONGEST:
        raise ValueError("is not a time")
    try:
        number = float(text)
    except ValueError:
        pass
    else:
        return seconds_of(number)
    try:
        # z and t are in RFC 3339, too. A + in a query that is not encoded becomes a space.
        at = datetime.fromisoformat(_LOST_PLUS.sub(r"\1+\2", text.upper()))
        if at.tzinfo is None:
            # The clocks of two machines may be in different zones.
            raise ValueError("lacks its offset from UTC, such as Z or +01:00")
        return at.timestamp()
    except (OverflowError, OSError):
        raise ValueError("is out of range") from None
    except ValueError as error:
        problem = str(error)
        if problem.startswith("lacks"):
            raise
        raise ValueError("is neither a number nor ISO 8601") from None
