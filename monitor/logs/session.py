"""The session of one connection: answers requests in order.

Uploads do not wait for each other: up to a limit they are committed concurrently. Other requests
wait until all earlier uploads are answered, so that a query sees the uploads of its connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from monitor.logs import answers
from monitor.logs.actions import Follow, ListRequest, Request, Unfollow, Upload, parse
from monitor.logs.answers import ActionError, ErrorCode, Head
from monitor.logs.followers import Follower
from monitor.logs.heads import breathe, echo, head_of
from monitor.logs.limits import Allowances
from monitor.logs.service import LogService
from monitor.tokens import ANYONE, Principal

__all__ = ["Session"]

logger = logging.getLogger("monitor.logs")


_MAX_UNANSWERED: Final = 64


class Session:
    """Answers the messages of one client.

    ``send`` sends an answer and never waits. ``follower`` is the client's end of the live tail. If
    ``no_follower`` is not empty, the client cannot follow, for this reason.
    """

    no_follower = ""

    def __init__(
        self,
        service: LogService,
        *,
        send: Callable[[bytes], None],
        follower: Follower,
    ) -> None:
        self._service = service
        self._send = send
        self._follower = follower
        self._slots: deque[tuple[asyncio.Future[bytes], Head]] = deque()
        self._room = asyncio.Event()
        self._room.set()
        self._answered = asyncio.Event()
        self._answered.set()
        self._allowances = service.allowances()
        self._closed = False
        self.follows = 0
        """How many live tails it has started."""

    @property
    def following(self) -> bool:
        """Whether it has a live tail."""
        return self._follower in self._service.tail

    @property
    def unanswered(self) -> int:
        """The number of requests that wait for their answers."""
        return len(self._slots)

    async def receive(self, data: bytes, principal: Principal | None) -> None:
        """Process one message of ``principal`` (None: without a valid token).

        Returns when it is answered, or for an upload when there is room for another message.
        Errors of the client are answered, not raised.
        """
        try:
            await self._request(data, principal)
        except ActionError as error:
            self._service.count(error.code)
            await self.answered()
            await breathe(data)
            self._send(error.answer(echo(data)))

    async def answered(self) -> None:
        """Wait until all requests are answered."""
        await self._answered.wait()

    def unfollow(self) -> None:
        """End the live tail."""
        self._service.tail.unfollow(self._follower)

    def close(self) -> None:
        """End the live tail and send nothing more; queued uploads are still committed."""
        self._closed = True
        self.unfollow()

    async def _request(self, data: bytes, principal: Principal | None) -> None:
        service = self._service
        if len(data) > service.settings.max_message_bytes:
            problem = f"the message exceeds {service.settings.max_message_bytes} bytes"
            raise ActionError(ErrorCode.TOO_LARGE, problem)
        allowances = [self._allowances]
        if principal is not None and principal is not ANYONE:
            allowances.append(service.token_allowances(principal))
        service.check(*allowances)
        for each in allowances:
            each.bytes.spend(len(data))
        if principal is None:
            self._allowances.entries.spend(1)
            raise ActionError(ErrorCode.UNAUTHORIZED, "a valid token is needed")
        request = await self._parse(data, allowances)
        if isinstance(request, Upload):
            # Validation may take several turns of the loop, in which earlier answers are sent.
            answer = await service.upload(request, principal)
            self._slots.append((answer, request.head))
            self._answered.clear()
            if len(self._slots) >= _MAX_UNANSWERED:
                self._room.clear()
            answer.add_done_callback(self._flush)
            await self._room.wait()
            return
        await self.answered()
        match request:
            case ListRequest():
                self._send(await service.list(request.query, principal, request.head))
            case Follow():
                await self._follow(request, principal)
                self._send(answers.succeeded(request.head))
            case Unfollow():
                self.unfollow()
                self._send(answers.succeeded(request.head))

    async def _parse(self, data: bytes, allowances: Sequence[Allowances]) -> Request:
        cost = 1
        try:
            found = await head_of(data)
            request = parse(data, max_batch=self._service.settings.max_batch, found=found)
            if isinstance(request, Upload):
                cost = max(1, len(request.items))
        finally:
            for each in allowances:
                each.entries.spend(cost)
        return request

    async def _follow(self, request: Follow, principal: Principal) -> None:
        if not principal.may_read:
            raise ActionError(ErrorCode.FORBIDDEN, "a sender's token may only upload")
        if self.no_follower:
            raise ActionError(ErrorCode.BAD_REQUEST, self.no_follower)
        tail = self._service.tail
        deaf = self._service.deaf()
        if deaf is not None:
            problem = f"new entries of other daemons do not arrive: {deaf}"
            raise ActionError(ErrorCode.UNAVAILABLE, problem, retry_after=5.0)
        if request.filter.regexp is not None:
            await tail.expressions.verify(request.filter.regexp)

        def ended(error: ActionError) -> None:
            if not self._closed:
                self._service.count(error.code)
                self._send(error.answer(request.head))

        if not self._closed:
            most = self._service.settings.max_followers
            if not self.following and not tail.make_room(principal.name, most):
                problem = "too many live tails"
                raise ActionError(ErrorCode.UNAVAILABLE, problem, retry_after=10.0)
            tail.follow(self._follower, request.filter, token=principal.name, ended=ended)
            self.follows += 1

    def _flush(self, _: asyncio.Future[bytes]) -> None:
        while self._slots and self._slots[0][0].done():
            answer, head = self._slots.popleft()
            if answer.cancelled():
                continue
            try:
                text = answer.result()
            except ActionError as error:
                self._service.count(error.code)
                text = error.answer(head)
            except Exception as error:
                logger.exception("cannot answer an upload")
                failed = f"the server failed: {type(error).__name__}"
                text = ActionError(ErrorCode.UNAVAILABLE, failed, retry_after=1.0).answer(head)
            if not self._closed:
                self._send(text)
        if len(self._slots) < _MAX_UNANSWERED:
            self._room.set()
        if not self._slots:
            self._answered.set()
