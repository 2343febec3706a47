"""Matches bodies in processes that can be killed, because a match may never end.

Python's engine backtracks: ``(a+)+$`` takes hours on 40 letters, and holds the interpreter's
lock meanwhile. So worker processes match, in three lanes with one worker each. A job starts in
the first lane, where a match may take a quarter of a second; one that takes longer is killed,
retried in the next lane, and stays there. So a catastrophic expression delays other jobs by a
quarter of a second once, and never blocks the loop.
"""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import socket
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from monitor.errors import SettingError
from monitor.probes import matching_worker
from monitor.probes.job import Option

__all__ = ["REGEXP_OPTION", "Matcher", "verify_expression"]

logger = logging.getLogger("monitor.probes")

# How long a match may take in each lane, in s; in the last as long as its job's timeout.
_LANES_S = (0.25, 2.0, math.inf)
_WORKER = str(Path(matching_worker.__file__).resolve())
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
        problem = matching_worker.problem(expression)
    if problem:
        raise SettingError(path, f"not a regular expression: {problem}")


# Sources are read again and again, with the same jobs in them.
@lru_cache(maxsize=1024)
def _compile_elsewhere(expression: bytes) -> str:
    command = [sys.executable, "-I", "-S", _WORKER, "compile", str(_COMPILE_S)]
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
        self._lanes = [_Lane(limit_s) for limit_s in _LANES_S]
        self._lane_of: dict[int, int] = {}

    async def search(
        self, expression: str, body: bytes, *, charset: str, job_id: int, timeout_s: float
    ) -> bool:
        """Return whether ``expression`` is found in the body; raise TimeoutError past the limit.

        A body that is not in ``charset`` (or where that is unknown, in UTF-8) is read with
        replacement characters.
        """
        names = (expression.encode("utf-8", "replace"), charset.encode("ascii", "replace")[:64])
        async with asyncio.timeout(timeout_s) as whole:
            while True:
                number = self._lane_of.get(job_id, 0)
                until = whole.when()
                assert until is not None
                try:
                    return await self._lanes[number].search(*names, body, until)
                except _TooSlowError:
                    self._lane_of[job_id] = min(number + 1, len(_LANES_S) - 1)
                    logger.warning(
                        "job %d: body_regexp took more than %g s", job_id, _LANES_S[number]
                    )

    def forget(self, job_id: int) -> None:
        """Put the job, which has changed or is gone, back in the first lane."""
        self._lane_of.pop(job_id, None)

    async def close(self) -> None:
        """End the workers."""
        for lane in self._lanes:
            await lane.close()


class _TooSlowError(Exception):
    """The match took longer than its lane allows; its worker is gone."""


class _Lane:
    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._turn = asyncio.Lock()
        self._worker: tuple[subprocess.Popen[bytes], socket.socket] | None = None

    async def search(self, expression: bytes, charset: bytes, body: bytes, until: float) -> bool:
        async with self._turn:
            loop = asyncio.get_running_loop()
            if self._worker is None:
                self._worker = await asyncio.to_thread(_start)
            _, connection = self._worker
            limit_s = max(0.001, min(self._limit_s, until - loop.time()))
            header = matching_worker.HEADER.pack(
                len(expression), len(charset), len(body), math.ceil(limit_s * 1000)
            )
            answer = b""
            try:
                await loop.sock_sendall(connection, header + expression + charset + body)
                answer = await loop.sock_recv(connection, 1)
            except OSError:
                # It ended during the write: the same as no answer.
                pass
            finally:
                if not answer:
                    await self.close()
            if not answer:
                raise _TooSlowError
            return answer == b"1"

    async def close(self) -> None:
        """End the worker."""
        if self._worker is not None:
            (process, connection), self._worker = self._worker, None
            connection.close()
            process.kill()
            await asyncio.shield(asyncio.to_thread(process.wait, timeout=_WAIT_S))


def _start() -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair()
    with theirs:
        # -I -S: nothing but the standard library is ever imported there.
        process: subprocess.Popen[bytes] = subprocess.Popen(
            [sys.executable, "-I", "-S", _WORKER], stdin=theirs.fileno(), stdout=theirs.fileno()
        )
    ours.setblocking(False)
    return process, ours
