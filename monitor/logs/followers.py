"""The live tail: sends new entries to followers, gathered for up to 100 ms per message.

Followers with the same filter share a feed: an entry is matched once, and a message is encoded once
and sent to each as the same bytes. Entries that a slow follower cannot take are counted, not kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from monitor.logs.answers import live
from monitor.logs.entries import Entry
from monitor.logs.filters import Filter

__all__ = ["Follower", "LiveMessage", "LiveTail"]

_GATHER_S: Final = 0.1
_CATCH_UP_S: Final = 1.0
# Limits of one message; a single entry may be larger.
_MESSAGE_ENTRIES: Final = 1000
_MESSAGE_CHARACTERS: Final = 256 * 1024


class LiveMessage:
    """Entries to send to followers, encoded once."""

    __slots__ = ("_before", "_end", "_shared", "count")

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.count = len(entries)
        self._before, self._end = live(entries)
        self._shared: dict[Callable[[bytes], bytes], bytes] = {}

    def text(self, dropped: int = 0) -> bytes:
        """Return the message for a follower that missed ``dropped`` entries before."""
        return b"%b%d%b" % (self._before, dropped, self._end)

    def shared(self, frame: Callable[[bytes], bytes]) -> bytes:
        """Return ``frame(text())``, computed once for all followers of a transport."""
        found = self._shared.get(frame)
        if found is None:
            found = self._shared[frame] = frame(self.text())
        return found


class Follower(Protocol):
    """A follower: it decides what it can take, and counts the rest."""

    def offer(self, message: LiveMessage) -> None:
        """Send the message at once or count it as dropped; never waits."""

    def catch_up(self) -> None:
        """Send the number of dropped entries, if there are any and it can take a message."""


class _Feed:
    __slots__ = ("characters", "filter", "followers", "pending", "timer")

    def __init__(self, filter_: Filter) -> None:
        self.filter = filter_
        self.followers: set[Follower] = set()
        self.pending: list[Entry] = []
        self.characters = 0
        self.timer: asyncio.TimerHandle | None = None


class LiveTail:
    """All feeds of this process, by filter; for the thread of the loop."""

    def __init__(self) -> None:
        self._feeds: dict[Filter, _Feed] = {}
        # Feeds by the sender of their filter, None for any: if each follower filters by another
        # sender, an entry is still only matched against a few.
        self._by_sender: dict[str | None, set[_Feed]] = {}
        self._where: dict[Follower, _Feed] = {}

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, follower: Follower) -> bool:
        return follower in self._where

    def follow(self, follower: Follower, filter_: Filter) -> None:
        """Start a live tail, which replaces the previous one of this follower."""
        self.unfollow(follower)
        feed = self._feeds.get(filter_)
        if feed is None:
            feed = self._feeds[filter_] = _Feed(filter_)
            self._by_sender.setdefault(filter_.sender, set()).add(feed)
        elif feed.pending:
            # Earlier entries are not for the new follower.
            self._flush(feed)
        feed.followers.add(follower)
        self._where[follower] = feed

    def unfollow(self, follower: Follower) -> None:
        """End the live tail of a follower."""
        feed = self._where.pop(follower, None)
        if feed is None:
            return
        feed.followers.discard(follower)
        if not feed.followers:
            if feed.timer is not None:
                feed.timer.cancel()
            del self._feeds[feed.filter]
            feeds = self._by_sender[feed.filter.sender]
            feeds.discard(feed)
            if not feeds:
                del self._by_sender[feed.filter.sender]

    def publish(self, entries: Sequence[Entry]) -> None:
        """Queue new entries, to be sent within 100 ms."""
        if not self._feeds:
            return
        by_sender: dict[str, list[Entry]] = {}
        if len(self._by_sender) > (None in self._by_sender):
            for entry in entries:
                by_sender.setdefault(entry.sender, []).append(entry)
        for sender, own in by_sender.items():
            self._gather(self._by_sender.get(sender, ()), own)
        self._gather(self._by_sender.get(None, ()), entries)

    async def catch_up(self) -> None:
        """Each second report dropped entries to followers that can take messages again."""
        while True:
            await asyncio.sleep(_CATCH_UP_S)
            for follower in list(self._where):
                follower.catch_up()

    def flush(self) -> None:
        """Send all gathered entries at once."""
        for feed in list(self._feeds.values()):
            self._flush(feed)

    def _gather(self, feeds: Iterable[_Feed], entries: Sequence[Entry]) -> None:
        for feed in list(feeds):
            for entry in feed.filter.select(entries):
                feed.pending.append(entry)
                feed.characters += len(entry.message)
                if len(feed.pending) >= _MESSAGE_ENTRIES or feed.characters >= _MESSAGE_CHARACTERS:
                    self._flush(feed)
            if feed.pending and feed.timer is None:
                loop = asyncio.get_running_loop()
                feed.timer = loop.call_later(_GATHER_S, self._due, feed)

    def _due(self, feed: _Feed) -> None:
        feed.timer = None
        self._flush(feed)

    def _flush(self, feed: _Feed) -> None:
        if not feed.pending:
            return
        message = LiveMessage(feed.pending)
        feed.pending, feed.characters = [], 0
        for follower in list(feed.followers):
            follower.offer(message)
