"""A ZeroMQ peer of the log actions: it has no connection, and sends a token per message."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from monitor.logs.answers import ActionError, ErrorCode, Head
from monitor.logs.followers import LiveMessage
from monitor.logs.heads import echo, tokens_in
from monitor.logs.service import LogService
from monitor.logs.session import Session
from monitor.tokens import TokenFile, Tokens

__all__ = ["Peer"]

_LONG_BYTES: Final = 64 * 1024
# After so long without a message, a follower gets an empty one: libzmq only reports at a send that
# a peer is gone.
_PROBE_S: Final = 60.0


class Peer:
    """A peer with its session and inbox; also a follower of the live tail.

    ``send`` sends it a message at once, and returns False if it is gone or takes nothing.
    ``refused`` is called for each message without a valid token, with the reason.
    """

    def __init__(
        self,
        identity: bytes,
        service: LogService,
        tokens: TokenFile,
        *,
        send: Callable[[Peer, bytes], bool],
        refused: Callable[[Peer, str], None],
    ) -> None:
        self.identity = identity
        self.address = "an unknown address"
        self.delimited = False
        self.is_known = False
        """Whether its last message had a valid token."""
        self.inbox: deque[bytes] = deque()
        self.task: asyncio.Task[None] | None = None
        self._clock = service.clock
        self.last_heard = self.last_told = service.clock()
        self._send = send
        self._refused = refused
        self._dropped = 0
        self._tokens = tokens
        # The token of its live tail, and the tokens in which it was last found.
        self._token: str | None = None
        self._found_in: Tokens | None = None
        self.session = Session(service, send=self._answer, follower=self)

    @property
    def idle(self) -> bool:
        """Whether it can be dropped without loss."""
        session = self.session
        return self.task is None and not session.unanswered and not session.following

    async def serve(self, data: bytes) -> None:
        """Answer one message, which has its own token.

        A long one is decoded only if it has a valid token: it could hold up everybody else.
        """
        tokens, follows = self._tokens.current, self.session.follows
        if len(data) > _LONG_BYTES and not any(
            tokens.identify(each) for each in (None, *tokens_in(data))
        ):
            data = data[:_LONG_BYTES]
        token = echo(data).token
        principal = tokens.identify(token)
        self.is_known = principal is not None
        if principal is None:
            self._refused(self, "its token is not valid" if token else "it has no token")
        await self.session.receive(data, principal)
        if self.session.follows > follows:
            self._token, self._found_in = token, tokens

    def _answer(self, answer: bytes) -> None:
        self._send(self, answer)

    def offer(self, message: LiveMessage) -> None:
        """Send the message, or count it as dropped if the queue is full."""
        if not self._may_follow():
            return
        if self._send(self, message.text(self._dropped)):
            self._dropped = 0
        else:
            self._dropped += message.count

    def catch_up(self) -> None:
        """Send the number of dropped entries, or now and then an empty message."""
        if self._may_follow() and (self._dropped or self._clock() - self.last_told >= _PROBE_S):
            self.offer(LiveMessage([]))

    def _may_follow(self) -> bool:
        """Return whether its token still permits a live tail; ends the tail if not."""
        tokens = self._tokens.current
        if tokens is self._found_in:
            return True
        self._found_in = tokens
        principal = tokens.identify(self._token)
        if principal is not None and principal.may_read:
            return True
        self.session.unfollow()
        self._dropped = 0
        error = ActionError(ErrorCode.UNAUTHORIZED, "the token is no longer valid")
        self._answer(error.answer(Head("followLogs")))
        return False
