"""How many examples a property gets: its usual number, or the share of it that is asked for."""

from __future__ import annotations

import os

__all__ = ["examples"]

# Of 100 examples, hypothesis' own number.
_OF_HUNDRED = int(os.environ.get("RECODEX_TEST_EXAMPLES", "100"))


def examples(usual: int = 100) -> int:
    """Return the number of examples of a property that usually gets ``usual``."""
    return max(1, usual * _OF_HUNDRED // 100)
