"""Sends one target's messages, in order, until each is accepted or a day old."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from monitor.alerts.incidents import Event, Incident
from monitor.alerts.outbox import Delivery, next_deliveries, note_attempt
from monitor.alerts.reading import incidents_of_delivery, open_of_receiver
from monitor.alerts.receivers import Message, Outcome, Target
from monitor.alerts.schedule import next_attempt
from monitor.alerts.statistics import Statistics
from monitor.backoff import Backoff
from monitor.errors import MonitorError
from monitor.log_limits import OutageLog
from monitor.store import RETRY_S, Store

__all__ = ["Sender"]

logger = logging.getLogger("monitor.alerts")

T = TypeVar("T")

_READ_AT_ONCE = 20
# Without news, the outbox is read this often: another instance may have written.
_LOOK_S = 10.0
_REFRESH_ID = "refresh"
# Another instance may have noted some of them: they are forgotten at last.
_MOST_UNNOTED = 1000


class Sender:
    """Takes messages from the outbox; ``clock`` gives s since the epoch.

    While a target is unavailable, its messages wait in order behind the first. A message that it
    refuses holds up no other. ``unnoted`` has the messages that were accepted and could not be
    noted, by id: a later sender of this process notes them, and does not send them again.
    """

    def __init__(
        self,
        target: Target,
        store: Store,
        statistics: Statistics,
        *,
        page: Callable[[], str | None],
        unnoted: dict[str, Outcome],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.target = target
        self.news = asyncio.Event()
        self.stopping = False
        self._store = store
        self._statistics = statistics
        self._page = page
        self._unnoted = unnoted
        self._clock = clock
        self._refused: set[str] = set()
        # By message, when to try again, on the monotonic clock: that of the wall may be set. One
        # that this process has not tried is tried at once.
        self._again_at: dict[str, float] = {}
        self._outage = OutageLog(
            logger, subject=f"receiver {target.receiver}", outcome="trying again for a day"
        )
        self._refreshed_at = time.monotonic()

    @property
    def problem(self) -> str | None:
        """Why its messages are not accepted now."""
        return self._outage.problem

    async def run(self) -> None:
        """Send until cancelled, or until told to stop between two attempts."""
        while not self.stopping:
            self.news.clear()
            waiting = await self._until_done(
                lambda: self._store.read(
                    functools.partial(
                        next_deliveries,
                        receiver=self.target.receiver,
                        target=self.target.key,
                        limit=_READ_AT_ONCE + len(self._refused),
                    )
                )
            )
            now = time.monotonic()
            delivery, due_at = self._next(waiting, now)
            if delivery is not None:
                await self._attempt(delivery)
                continue
            pause = _LOOK_S if due_at is None else min(max(due_at - now, 0.01), _LOOK_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self.news.wait()
            await self._refresh()

    def _next(
        self, waiting: Sequence[Delivery], now: float
    ) -> tuple[Delivery | None, float | None]:
        """Return the message to send now, or else when to look again (monotonic)."""
        self._refused &= {delivery.id for delivery in waiting}
        self._again_at = {
            each.id: self._again_at[each.id] for each in waiting if each.id in self._again_at
        }
        soonest: float | None = None
        for delivery in waiting:
            again_at = self._again_at.get(delivery.id, now)
            if again_at <= now:
                return delivery, None
            soonest = again_at if soonest is None else min(soonest, again_at)
            if delivery.id not in self._refused:
                break
        return None, soonest

    async def _attempt(self, delivery: Delivery) -> None:
        incidents = await self._until_done(
            lambda: self._store.read(
                functools.partial(incidents_of_delivery, delivery_id=delivery.id)
            )
        )
        event: Event = delivery.event
        now = self._clock()
        known = self._unnoted.get(delivery.id)
        if known is not None:
            outcome = known
        elif incidents:
            message = Message(
                event=event,
                delivery=delivery.id,
                incidents=incidents,
                page=self._page(),
                now=now,
            )
            outcome = await self._send(message)
        else:
            outcome = Outcome(accepted=True, said="its incidents are deleted")
        if outcome.accepted:
            self._unnoted[delivery.id] = outcome
            if len(self._unnoted) > _MOST_UNNOTED:
                del self._unnoted[next(iter(self._unnoted))]
        await self._note(delivery, outcome, incidents)
        self._unnoted.pop(delivery.id, None)

    async def _send(self, message: Message) -> Outcome:
        """Send a message; what a receiver can make fail holds up no other."""
        try:
            return await self.target.send(message)
        except Exception as error:
            logger.exception("receiver %s: sending failed", self.target.receiver)
            return Outcome(accepted=False, said=f"sending failed with {type(error).__name__}")

    async def _note(
        self, delivery: Delivery, outcome: Outcome, incidents: Sequence[Incident]
    ) -> None:
        now, attempts = self._clock(), delivery.attempts + 1
        receiver = delivery.receiver
        next_at = None
        if not outcome.accepted:
            next_at = next_attempt(
                attempts=attempts,
                created_at=delivery.created_at,
                now=now,
                retry_after_s=outcome.retry_after_s,
            )
            if next_at is not None:
                self._again_at[delivery.id] = time.monotonic() + next_at - now
        # Not given up before it is noted: what was accepted must not be sent again.
        await self._until_done(
            lambda: self._store.transaction(
                lambda connection: note_attempt(
                    connection,
                    delivery.id,
                    attempts=attempts,
                    error=None if outcome.accepted else outcome.said,
                    accepted_at=now if outcome.accepted else None,
                    next_at=next_at,
                    now=now,
                )
            )
        )
        count = f"{len(incidents)} incident{'' if len(incidents) == 1 else 's'}"
        if outcome.accepted:
            self._outage.recovered("accepts messages again")
            logger.info("receiver %s: %s, %s: accepted", receiver, delivery.event, count)
            self._statistics.attempted(receiver, "accepted")
            if delivery.event == "opened" and incidents:
                self._statistics.delivered(now - min(each.opened_at for each in incidents))
            return
        if outcome.refused:
            self._refused.add(delivery.id)
        if next_at is None:
            self._statistics.attempted(receiver, "given-up")
            logger.error(
                "receiver %s: gave up on a message (%s, %s) after %d attempts in a day: %s",
                receiver,
                delivery.event,
                count,
                attempts,
                outcome.said,
            )
            return
        self._statistics.attempted(receiver, "refused" if outcome.refused else "failed")
        self._outage.failed(f"did not accept a message: {outcome.said}")

    async def _refresh(self) -> None:
        """Send the open incidents again to a target that forgets them."""
        every = self.target.refresh_s
        if every is None or time.monotonic() - self._refreshed_at < every:
            return
        self._refreshed_at = time.monotonic()
        receiver = self.target.receiver
        try:
            incidents = await self._store.read(
                functools.partial(open_of_receiver, receiver=receiver)
            )
        except MonitorError:
            return
        if incidents:
            message = Message(
                event="opened",
                delivery=_REFRESH_ID,
                incidents=incidents,
                page=self._page(),
                now=self._clock(),
            )
            outcome = await self._send(message)
            if not outcome.accepted:
                self._outage.failed(f"did not accept its open incidents: {outcome.said}")
            else:
                self._outage.recovered("accepts messages again")

    async def _until_done(self, act: Callable[[], Awaitable[T]]) -> T:
        """Repeat a transaction until the database takes it."""
        backoff = Backoff(*RETRY_S)
        while True:
            try:
                return await act()
            except MonitorError as error:
                logger.debug("receiver %s: %s", self.target.receiver, error)
                await asyncio.sleep(backoff.next_delay())
