"""Who holds how much of what all share, so that the one who holds most of it makes room.

The holder is the host that a peer connects from, or of IPv6 the network, of which a host may have
all addresses. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Hashable
from functools import lru_cache
from typing import Generic, TypeVar

__all__ = ["Crowds", "holder"]

T = TypeVar("T", bound=Hashable)


@lru_cache(maxsize=4096)
def holder(address: str) -> str:
    """Return the holder for an IP address: itself, or of IPv6 its /64 network."""
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = found.ipv4_mapped
    return str(mapped or ipaddress.IPv6Network((found, 64), strict=False))


class Crowds(Generic[T]):
    """What each holder holds, such as connections; every call takes constant time."""

    def __init__(self) -> None:
        self._holder_of: dict[T, str] = {}
        # In the order in which they were added.
        self._held: dict[str, dict[T, None]] = {}
        # Holders by how much they hold.
        self._by_count: dict[int, dict[str, None]] = {}
        self._most = 0

    def __len__(self) -> int:
        return len(self._holder_of)

    def __contains__(self, each: T) -> bool:
        return each in self._holder_of

    def add(self, each: T, address: str) -> None:
        """Add what a peer at an address holds; what is there already moves."""
        self.discard(each)
        name = self._holder_of[each] = holder(address)
        held = self._held.setdefault(name, {})
        held[each] = None
        self._moved(name, len(held) - 1, len(held))

    def discard(self, each: T) -> None:
        """Remove it, if it is there."""
        name = self._holder_of.pop(each, None)
        if name is None:
            return
        held = self._held[name]
        del held[each]
        if not held:
            del self._held[name]
        self._moved(name, len(held) + 1, len(held))

    def count(self, address: str) -> int:
        """Return how much the holder for an address holds."""
        return len(self._held.get(holder(address), ()))

    def largest(self) -> dict[T, None]:
        """Return what is held by one that holds most, the oldest first; it may change later."""
        if not self._most:
            return {}
        return self._held[next(iter(self._by_count[self._most]))]

    def _moved(self, name: str, before: int, after: int) -> None:
        if before:
            holders = self._by_count[before]
            del holders[name]
            if not holders:
                del self._by_count[before]
        if after:
            self._by_count.setdefault(after, {})[name] = None
        if after > self._most or (before == self._most and before not in self._by_count):
            self._most = after
