"""The live tail: sends new entries to followers, gathered for up to 100 ms per message.

Followers with the same filter share a feed: an entry is matched once, and a message is encoded once
and sent to each as the same bytes. Entries that a slow follower cannot take are counted, not kept.
A regular expression that takes too long ends the live tails with it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Final, Protocol

from monitor.logs.answers import ActionError, ErrorCode, live
from monitor.logs.entries import Entry
from monitor.logs.expressions import MESSAGE_BYTES, MESSAGES, Expressions
from monitor.logs.filters import Filter, SearchedEntry
from monitor.transport.crowds import Crowds

__all__ = ["Follower", "LiveMessage", "LiveTail"]

_GATHER_S: Final = 0.1
_CATCH_UP_S: Final = 1.0
# Searching: s of a turn of the loop, entries of a slice, and entries that may wait.
_TURN_S: Final = 0.005
_SLICE: Final = 50
# Looks at an entry that are made at once.
_AT_ONCE: Final = 500
_MAX_BACKLOG: Final = 50_000
# Entries and characters that may wait in a feed for its regular expression.
_MAX_UNMATCHED: Final = 10_000
_MAX_UNMATCHED_CHARACTERS: Final = 8 * 1024 * 1024
# Limits of one message; a single entry may be larger.
_MESSAGE_ENTRIES: Final = 1000
_MESSAGE_CHARACTERS: Final = 256 * 1024


class LiveMessage:
    """Entries to send to followers, encoded once."""

    __slots__ = ("_before", "_end", "_missed", "_shared", "count")

    def __init__(self, entries: Sequence[Entry], missed: int = 0) -> None:
        """Take entries, and how many before them nobody looked at."""
        self.count = len(entries) + missed
        self._missed = missed
        self._before, self._end = live(entries)
        self._shared: dict[Callable[[bytes], bytes], bytes] = {}

    def text(self, dropped: int = 0) -> bytes:
        """Return the message for a follower that missed ``dropped`` entries before."""
        return b"%b%d%b" % (self._before, dropped + self._missed, self._end)

    def shared(self, frame: Callable[[bytes], bytes]) -> bytes:
        """Return ``frame(text())``, computed once for all followers of a transport."""
        found = self._shared.get(frame)
        if found is None:
            found = self._shared[frame] = frame(self.text())
        return found


class Follower(Hashable, Protocol):
    """A follower: it decides what it can take, and counts the rest."""

    def offer(self, message: LiveMessage) -> None:
        """Send the message at once or count it as dropped; never waits."""

    def catch_up(self) -> None:
        """Send the number of dropped entries, if there are any and it can take a message."""


class _Feed:
    __slots__ = (
        "characters",
        "filter",
        "followers",
        "missed",
        "pending",
        "timer",
        "unmatched",
        "unmatched_characters",
    )

    def __init__(self, filter_: Filter) -> None:
        self.filter = filter_
        self.followers: set[Follower] = set()
        self.pending: list[Entry] = []
        self.characters = 0
        # Entries that were not looked at, because too many were waiting.
        self.missed = 0
        self.timer: asyncio.TimerHandle | None = None
        # Entries in which the regular expression was not looked for yet, or is now.
        self.unmatched: deque[Entry] = deque()
        self.unmatched_characters = 0

    def some_unmatched(self) -> list[Entry]:
        """Return the next entries to match, oldest first."""
        some: list[Entry] = []
        size = 0
        for entry in self.unmatched:
            size += len(entry.message)
            if some and (len(some) == MESSAGES or size > MESSAGE_BYTES):
                break
            some.append(entry)
        return some

    def forget_unmatched(self, count: int) -> None:
        """Remove this many of them."""
        for _ in range(count):
            self.unmatched_characters -= len(self.unmatched.popleft().message)


class LiveTail:
    """All feeds of this process, by filter; for the thread of the loop."""

    def __init__(self) -> None:
        self._feeds: dict[Filter, _Feed] = {}
        # Feeds by the sender of their filter, None for any: if each follower filters by another
        # sender, an entry is still only matched against a few.
        self._by_sender: dict[str | None, set[_Feed]] = {}
        self._where: dict[Follower, _Feed] = {}
        self._ended: dict[Follower, Callable[[ActionError], None]] = {}
        # By the names of their tokens.
        self._crowds: Crowds[Follower] = Crowds()
        # Feeds that look at every message do so in a task, in slices.
        self._searching: set[_Feed] = set()
        self._backlog: deque[tuple[Sequence[Entry], tuple[_Feed, ...]]] = deque()
        self._backlog_entries = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        # Feeds whose regular expression has entries to match, the next one first.
        self.expressions = Expressions()
        self._unmatched: dict[_Feed, None] = {}
        self._match = asyncio.Event()
        self._matched = asyncio.Event()
        self._matched.set()

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, follower: Follower) -> bool:
        return follower in self._where

    def make_room(self, token: str, most: int) -> bool:
        """Return whether a token may have one more live tail, of ``most`` in all.

        If there are as many, the newest one of the token with most makes room, unless the new one
        would only change places with it.
        """
        if len(self._where) < most:
            return True
        largest = self._crowds.largest()
        if len(largest) <= self._crowds.count(token) + 1:
            return False
        newest = next(reversed(largest))
        ended = self._ended[newest]
        self.unfollow(newest)
        problem = "too many live tails, of which this token had most"
        ended(ActionError(ErrorCode.UNAVAILABLE, problem, retry_after=10.0))
        return True

    def follow(
        self,
        follower: Follower,
        filter_: Filter,
        *,
        token: str = "",
        ended: Callable[[ActionError], None] = lambda _: None,
    ) -> None:
        """Start a live tail, which replaces the previous one of this follower.

        ``token`` is the name of its token. ``ended`` is called if the tail ends because its regular
        expression takes too long, or because others need the room.
        """
        self.unfollow(follower)
        feed = self._feeds.get(filter_)
        if feed is None or (filter_.searches and self._backlog) or feed.unmatched:
            # Entries that wait are earlier ones, too.
            feed = self._feeds[filter_] = _Feed(filter_)
            if filter_.searches:
                self._searching.add(feed)
            else:
                self._by_sender.setdefault(filter_.sender, set()).add(feed)
        elif feed.pending:
            # Earlier entries are not for the new follower.
            self._flush(feed)
        feed.followers.add(follower)
        self._where[follower] = feed
        self._ended[follower] = ended
        self._crowds.add(follower, token)

    def unfollow(self, follower: Follower) -> None:
        """End the live tail of a follower."""
        feed = self._where.pop(follower, None)
        if feed is None:
            return
        del self._ended[follower]
        self._crowds.discard(follower)
        feed.followers.discard(follower)
        if not feed.followers:
            if feed.timer is not None:
                feed.timer.cancel()
            if self._feeds.get(feed.filter) is feed:
                del self._feeds[feed.filter]
            if feed.filter.searches:
                self._searching.discard(feed)
                return
            feeds = self._by_sender[feed.filter.sender]
            feeds.discard(feed)
            if not feeds:
                del self._by_sender[feed.filter.sender]

    def publish(self, entries: Sequence[Entry]) -> None:
        """Queue new entries, to be sent within 100 ms."""
        if not self._where:
            return
        if self._searching and not self._backlog and self._is_little(len(entries)):
            self._search(self._searching, entries)
        elif self._searching:
            self._search_later(entries)
        by_sender: dict[str, list[Entry]] = {}
        if len(self._by_sender) > (None in self._by_sender):
            for entry in entries:
                by_sender.setdefault(entry.sender, []).append(entry)
        for sender, own in by_sender.items():
            self._gather(self._by_sender.get(sender, ()), own)
        self._gather(self._by_sender.get(None, ()), entries)

    def _is_little(self, count: int) -> bool:
        """Return whether this many entries can be looked at in this turn."""
        return count * len(self._searching) <= _AT_ONCE

    def _search(self, feeds: Iterable[_Feed], entries: Sequence[Entry]) -> None:
        searched = [SearchedEntry(entry) for entry in entries]
        for feed in list(feeds):
            self._found(feed, feed.filter.select_searched(searched))

    def _search_later(self, entries: Sequence[Entry]) -> None:
        if self._backlog_entries + len(entries) > _MAX_BACKLOG and self._backlog:
            for feed in self._searching:
                feed.missed += len(entries)
            return
        self._backlog.append((entries, tuple(self._searching)))
        self._backlog_entries += len(entries)
        self._idle.clear()
        self._wake.set()

    async def search(self) -> None:
        """Look for what the filters with texts match, in turns of some ms, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            while self._backlog:
                entries, feeds = self._backlog[0]
                until = loop.time() + _TURN_S
                for start in range(0, len(entries), _SLICE):
                    some = [SearchedEntry(entry) for entry in entries[start : start + _SLICE]]
                    for feed in feeds:
                        if feed.followers:
                            self._found(feed, feed.filter.select_searched(some))
                        if loop.time() >= until:
                            await asyncio.sleep(0)
                            until = loop.time() + _TURN_S
                self._backlog.popleft()
                self._backlog_entries -= len(entries)
            self._wake.clear()
            self._idle.set()

    def _found(self, feed: _Feed, entries: Sequence[Entry]) -> None:
        """Send what matches all but the regular expression, or queue it for that."""
        if feed.filter.regexp is None or not entries:
            self._gather((feed,), entries, matched=True)
            return
        size = sum(len(entry.message) for entry in entries)
        if feed.unmatched and (
            len(feed.unmatched) + len(entries) > _MAX_UNMATCHED
            or feed.unmatched_characters + size > _MAX_UNMATCHED_CHARACTERS
        ):
            self._miss(feed, len(entries))
            return
        feed.unmatched.extend(entries)
        feed.unmatched_characters += size
        self._unmatched[feed] = None
        self._matched.clear()
        self._match.set()

    async def match(self) -> None:
        """Look for regular expressions in what waits for that, until cancelled."""
        while True:
            await self._match.wait()
            while self._unmatched:
                feed = next(iter(self._unmatched))
                del self._unmatched[feed]
                await self._match_some(feed)
                if feed.unmatched and feed.followers:
                    # To the end: others are next.
                    self._unmatched[feed] = None
            self._match.clear()
            self._matched.set()

    async def _match_some(self, feed: _Feed) -> None:
        regexp, some = feed.filter.regexp, feed.some_unmatched()
        if regexp is None or not feed.followers:
            return
        try:
            places = await self.expressions.select(regexp, [entry.message for entry in some])
        except ActionError as error:
            feed.forget_unmatched(len(some))
            if error.code is ErrorCode.BAD_REQUEST:
                for follower in list(feed.followers):
                    ended = self._ended[follower]
                    self.unfollow(follower)
                    ended(error)
            else:
                self._miss(feed, len(some))
            return
        feed.forget_unmatched(len(some))
        self._gather((feed,), [some[place] for place in places], matched=True)

    async def settled(self) -> None:
        """Wait until all published entries were looked at."""
        await self._idle.wait()
        await self._matched.wait()

    async def close(self) -> None:
        """End the process that looks for regular expressions."""
        await self.expressions.close()

    async def catch_up(self) -> None:
        """Each second report dropped entries to followers that can take messages again."""
        while True:
            await asyncio.sleep(_CATCH_UP_S)
            for follower in list(self._where):
                follower.catch_up()

    def flush(self) -> None:
        """Send all gathered entries at once."""
        # Not all of them are in _feeds: a later one may have the same filter.
        for feed in set(self._where.values()):
            self._flush(feed)

    def _gather(
        self, feeds: Iterable[_Feed], entries: Sequence[Entry], *, matched: bool = False
    ) -> None:
        for feed in list(feeds):
            for entry in entries if matched else feed.filter.select(entries):
                feed.pending.append(entry)
                feed.characters += len(entry.message)
                if len(feed.pending) >= _MESSAGE_ENTRIES or feed.characters >= _MESSAGE_CHARACTERS:
                    self._flush(feed)
            if feed.pending:
                self._flush_soon(feed)

    def _miss(self, feed: _Feed, count: int) -> None:
        feed.missed += count
        self._flush_soon(feed)

    def _flush_soon(self, feed: _Feed) -> None:
        if feed.timer is None:
            feed.timer = asyncio.get_running_loop().call_later(_GATHER_S, self._due, feed)

    def _due(self, feed: _Feed) -> None:
        feed.timer = None
        self._flush(feed)

    def _flush(self, feed: _Feed) -> None:
        if not feed.pending and not feed.missed:
            return
        message = LiveMessage(feed.pending, feed.missed)
        feed.pending, feed.characters, feed.missed = [], 0, 0
        for follower in list(feed.followers):
            follower.offer(message)
