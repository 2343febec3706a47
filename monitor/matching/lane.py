"""One process that matches for others, one request after the other."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import math
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from monitor.matching import worker

__all__ = ["WORKER", "ExpressionError", "Lane", "TooSlowError"]

WORKER: Final = str(Path(worker.__file__).resolve())
"""The path of the program of the process."""

_WAIT_S: Final = 5.0
_decode = msgspec.json.Decoder(str | list[int]).decode


class ExpressionError(Exception):
    """An expression does not compile; its text says why."""


class TooSlowError(Exception):
    """The match took longer than its lane allows; its process is gone."""


class Lane:
    """Starts the process at the first request, and again after one that took too long.

    ``limit_s`` is how long a request may take. For the thread of the loop.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._turn = asyncio.Lock()
        self._process: tuple[subprocess.Popen[bytes], socket.socket] | None = None

    async def ask(
        self, what: int, expression: bytes, charset: bytes, body: bytes, until: float
    ) -> int:
        """Return what the process answers to SEARCH, LINES or JSON.

        Raises TooSlowError past the limit or ``until``, by the clock of the loop, and OSError if
        there can be no process.
        """
        async with self._turn:
            limit_s = min(self._limit_s, until - asyncio.get_running_loop().time())
            connection = await self._sent(what, expression, charset, body, limit_s)
            return await self._number(connection)

    async def select(self, expression: str, texts: Sequence[str]) -> list[int]:
        """Return the places of the texts in which the expression is found.

        No text has NUL. The limit of the lane is time of the processor. Raises TooSlowError past
        it, ExpressionError, and OSError if there can be no process.
        """
        names = expression.encode("utf-8", "replace")
        body = "\0".join(texts).encode("utf-8", "replace")
        async with self._turn:
            connection = await self._sent(worker.SELECT, names, b"", body, self._limit_s)
            size = await self._number(connection)
            found = _decode(await self._received(connection, size))
        if isinstance(found, str):
            raise ExpressionError(found)
        return found if texts else []

    async def close(self) -> None:
        """End the process."""
        if self._process is not None:
            (process, connection), self._process = self._process, None
            connection.close()
            process.kill()
            await asyncio.shield(asyncio.to_thread(process.wait, timeout=_WAIT_S))

    async def _sent(
        self, what: int, expression: bytes, charset: bytes, body: bytes, limit_s: float
    ) -> socket.socket:
        if self._process is not None and self._process[0].poll() is not None:
            # Something else ended it since the last request, which says nothing about this one.
            await self.close()
        if self._process is None:
            self._process = await asyncio.to_thread(_start)
        _, connection = self._process
        sizes = (len(expression), len(charset), len(body))
        header = worker.HEADER.pack(what, *sizes, math.ceil(max(0.001, limit_s) * 1000))
        sent = False
        try:
            await asyncio.get_running_loop().sock_sendall(
                connection, header + expression + charset + body
            )
            sent = True
        except OSError:
            # It ended during the write: the same as no answer.
            raise TooSlowError from None
        finally:
            if not sent:
                await self.close()
        return connection

    async def _number(self, connection: socket.socket) -> int:
        (number,) = worker.ANSWER.unpack(await self._received(connection, worker.ANSWER.size))
        return int(number)

    async def _received(self, connection: socket.socket, size: int) -> bytes:
        loop, received = asyncio.get_running_loop(), bytearray()
        try:
            while len(received) < size and (
                piece := await loop.sock_recv(connection, size - len(received))
            ):
                received += piece
        except OSError:
            pass
        finally:
            if len(received) < size:
                await self.close()
        if len(received) < size:
            raise TooSlowError
        return bytes(received)


def _start() -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair()
    with theirs, contextlib.ExitStack() as stack:
        stack.callback(ours.close)
        # -I -S: only the standard library is imported there, and jmespath for a job with json.
        # Warnings are about expressions, whose authors do not read them.
        command = [sys.executable, "-I", "-S", "-W", "ignore", WORKER, _libraries()]
        process: subprocess.Popen[bytes] = subprocess.Popen(
            command, stdin=theirs.fileno(), stdout=theirs.fileno()
        )
        stack.pop_all()
    ours.setblocking(False)
    return process, ours


def _libraries() -> str:
    """Return the folder that jmespath is in, "" if it is not installed."""
    found = importlib.util.find_spec("jmespath")
    return "" if found is None or found.origin is None else str(Path(found.origin).parents[1])
