"""What a job says to a server and expects to hear, over a plain socket, TLS or a WebSocket."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated

from monitor.errors import SettingError
from monitor.probes.connection import Connection, ProbeError
from monitor.probes.matching import Matcher, verify_expression
from monitor.settings import Section, secret, verify_each

__all__ = ["MOST_RECEIVED_BYTES", "Dialogue", "Listening", "Step", "verify_dialogue"]

MOST_RECEIVED_BYTES = 65536
_MOST_STEPS = 100
_SHOWN_BYTES = 80


class Step(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step of a dialogue: what must come, then what is sent; one of both may be left out."""

    # must match what the server has sent since the last match; ^ and $ are those of a line
    expect: str | None = None
    # sent after the match, as it stands, in UTF-8; write \r\n where a protocol has it
    send: Annotated[str, secret] | None = None


Dialogue = list[Step]


def verify_dialogue(dialogue: Dialogue) -> None:
    """Raise SettingError with the step for one that makes no sense."""
    if len(dialogue) > _MOST_STEPS:
        raise SettingError(("dialogue",), f"more than {_MOST_STEPS} steps")
    verify_each(*(partial(_verify_step, *each) for each in enumerate(dialogue)))


def _verify_step(number: int, step: Step) -> None:
    if step.expect is None and step.send is None:
        raise SettingError(("dialogue", number), "needs expect or send")
    verify_expression(step.expect, ("dialogue", number, "expect"))


class Listening:
    """Compares the answers with what is expected, in one connection.

    ``more`` returns the next bytes, and nothing at the end.
    """

    def __init__(
        self,
        connection: Connection,
        matcher: Matcher,
        job_id: int,
        more: Callable[[], Awaitable[bytes]],
    ) -> None:
        self._connection = connection
        self._matcher = matcher
        self._job_id = job_id
        self._more = more
        self._received = b""

    async def expect(self, expression: str, what: str, *, most: int = MOST_RECEIVED_BYTES) -> None:
        """Wait for a match within ``most`` bytes; raise ProbeError for another answer.

        ``what`` names the answer in the error. A server that says something else and then nothing
        more is a mismatch too, at the job's timeout.
        """
        until = time.monotonic() + self._connection.left_s
        while True:
            if self._received:
                end = await self._matcher.end_in_lines(
                    expression,
                    self._received,
                    job_id=self._job_id,
                    timeout_s=until - time.monotonic(),
                )
                if end is not None:
                    self._received = self._received[end:]
                    self._connection.if_late = None
                    return
                problem = self._problem(what)
                self._connection.if_late = problem
                if len(self._received) >= most:
                    self._connection.matched = False
                    raise ProbeError(problem)
            piece = await self._more()
            if not piece:
                self._connection.matched = False
                raise ProbeError(self._problem(what))
            self._received += piece[: most - len(self._received)]

    def _problem(self, what: str) -> str:
        return f"body-mismatch: {what} was {self._received[:_SHOWN_BYTES]!r}"

    async def hold(self, dialogue: Dialogue, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Go through all steps."""
        for number, step in enumerate(dialogue):
            if step.expect is not None:
                await self.expect(step.expect, f"the answer at step {number + 1}")
            if step.send is not None:
                await send(step.send.encode())
