"""Times as clients write them: s, ms, us or ns since the epoch, or ISO 8601. Pure."""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import Final

__all__ = ["seconds_of"]

# In one unit, this is the year 5138; in the next smaller one, it is in 1973. No entry of a running
# system is from either, so a number says by its size which unit it is in.
_LEAST: Final = 1e11
_SMALLER_UNITS: Final = 3
_LONGEST: Final = 64
_LOST_PLUS: Final = re.compile(r"(:\d\d(?:\.\d+)?) (\d\d:?\d\d)\Z")


def seconds_of(time: float | str) -> float:
    """Return a time in s since the epoch; raises ValueError with what is wrong with it.

    A number from 100,000,000,000 on is in ms, from a thousand times that on in us, and so on to ns.
    A text is ISO 8601 with an offset from UTC, or a number.
    """
    if isinstance(time, str):
        return _parsed(time)
    if not math.isfinite(time):
        raise ValueError("is not finite")
    unit = 1
    while unit < 1000**_SMALLER_UNITS and abs(time) >= _LEAST * unit:
        unit *= 1000
    return time / unit


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
