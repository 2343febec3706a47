"""Matches in processes that can be killed, because a match may never end.

Python's engine backtracks: ``(a+)+$`` takes hours on 40 letters, and holds the interpreter's
lock meanwhile. So a :class:`Lane` has a process that matches, one request at a time.
"""

from monitor.matching.lane import WORKER, ExpressionError, Lane, TooSlowError

__all__ = ["WORKER", "ExpressionError", "Lane", "TooSlowError"]
