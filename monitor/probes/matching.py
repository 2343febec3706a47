"""Matches bodies in three lanes, so that a match that never ends delays no other job.

Each lane has a process of its own (:mod:`monitor.matching`). A job starts in the first lane, where
a match may take a quarter of a second; one that takes longer is killed, retried in the next lane,
and stays there. So a catastrophic expression delays other jobs by a quarter of a second once, and
never blocks the loop.
"""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import subprocess
import sys
from functools import lru_cache

from monitor.errors import SettingError
from monitor.libraries import needed_by
from monitor.matching import WORKER, Lane, TooSlowError, worker
from monitor.probes.job import Option
from monitor.validation import printable

__all__ = ["REGEXP_OPTION", "Matcher", "verify_expression", "verify_json_expression"]

logger = logging.getLogger("monitor.probes")

# How long a match may take in each lane, in s; in the last as long as its job's timeout.
_LANES_S = (0.25, 2.0, math.inf)
_WAIT_S = 5.0
_LONGEST_EXPRESSION = 8192
# Python spends up to some 10 ms on each range of characters; with more dashes than this, an
# expression is compiled where that can be ended.
_MOST_RANGES = 20
_COMPILE_S = 2.0

REGEXP_OPTION = Option("--regexp", "body_regexp", "must match the body or the banner", "RE")


def verify_expression(expression: str | None, path: tuple[str | int, ...]) -> None:
    """Raise SettingError with ``path`` for a regular expression that is invalid or too expensive.

    Blocks for a few seconds at most.
    """
    if expression is None:
        return
    if len(expression) > _LONGEST_EXPRESSION:
        raise SettingError(path, f"longer than {_LONGEST_EXPRESSION} characters")
    if expression.count("-") > _MOST_RANGES:
        problem = _compile_elsewhere(expression.encode())
    else:
        problem = worker.problem(expression)
    if problem:
        raise SettingError(path, f"not a regular expression: {problem}")


def verify_json_expression(expression: str | None, path: tuple[str | int, ...]) -> None:
    """Raise SettingError with ``path`` for text that is not a JMESPath expression."""
    if expression is None:
        return
    if len(expression) > _LONGEST_EXPRESSION:
        raise SettingError(path, f"longer than {_LONGEST_EXPRESSION} characters")
    with needed_by("probes"):
        import jmespath
    try:
        jmespath.compile(expression)
    except (ValueError, RecursionError) as error:
        problem = "nested too deeply" if isinstance(error, RecursionError) else _one_line(error)
        raise SettingError(path, f"not a JMESPath expression: {problem}") from None


def _one_line(error: Exception) -> str:
    return printable(str(error).splitlines()[0]) if str(error) else type(error).__name__


# Sources are read again and again, with the same jobs in them.
@lru_cache(maxsize=1024)
def _compile_elsewhere(expression: bytes) -> str:
    command = [sys.executable, "-I", "-S", WORKER, "compile", str(_COMPILE_S)]
    limit_s = _COMPILE_S + _WAIT_S
    try:
        done = subprocess.run(
            command, input=expression, capture_output=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it takes more than {_COMPILE_S:g} s to compile"
    if done.returncode == -signal.SIGALRM:
        return f"it takes more than {_COMPILE_S:g} s to compile"
    if done.returncode:
        return "Python fails to compile it"
    return done.stdout.decode()


class Matcher:
    """Searches bodies for expressions; see the module."""

    def __init__(self) -> None:
        self._lanes = [Lane(limit_s) for limit_s in _LANES_S]
        self._lane_of: dict[int, int] = {}

    async def search(
        self,
        expression: str,
        body: bytes,
        *,
        charset: str = "",
        job_id: int,
        timeout_s: float,
    ) -> bool:
        """Return whether ``expression`` is found in the body; raise TimeoutError past the limit.

        The body is read as browsers do: by its byte order mark, else in ``charset``, else in that
        of its meta tag, else in UTF-8; with replacement characters.
        """
        what = worker.SEARCH
        found = await self._ask(what, expression, body, charset, job_id=job_id, timeout_s=timeout_s)
        return found >= 0

    async def end_in_lines(
        self, expression: str, received: bytes, *, job_id: int, timeout_s: float
    ) -> int | None:
        """Return where a match in a dialogue ends, or None; ``^`` and ``$`` are those of a line."""
        what = worker.LINES
        end = await self._ask(what, expression, received, "", job_id=job_id, timeout_s=timeout_s)
        return end if end >= 0 else None

    async def json_problem(
        self, expression: str, body: bytes, *, charset: str = "", job_id: int, timeout_s: float
    ) -> str | None:
        """Return why a JMESPath expression is not true of a body; None if it is."""
        what = worker.JSON
        found = await self._ask(what, expression, body, charset, job_id=job_id, timeout_s=timeout_s)
        if found == worker.NOT_JSON:
            return "the body is not JSON"
        return "json is not true" if found < 0 else None

    async def _ask(
        self,
        what: int,
        expression: str,
        body: bytes,
        charset: str,
        *,
        job_id: int,
        timeout_s: float,
    ) -> int:
        names = (expression.encode("utf-8", "replace"), charset.encode("ascii", "replace")[:64])
        async with asyncio.timeout(timeout_s) as whole:
            while True:
                number = self._lane_of.get(job_id, 0)
                until = whole.when()
                assert until is not None
                try:
                    return await self._lanes[number].ask(what, *names, body, until)
                except TooSlowError:
                    self._lane_of[job_id] = min(number + 1, len(_LANES_S) - 1)
                    logger.warning("job %d: a match took more than %g s", job_id, _LANES_S[number])

    def forget(self, job_id: int) -> None:
        """Put the job, which has changed or is gone, back in the first lane."""
        self._lane_of.pop(job_id, None)

    async def close(self) -> None:
        """End the workers."""
        for lane in self._lanes:
            await lane.close()
