"""Roles, the owners of tokens, and the tokens that are valid at one time."""

from __future__ import annotations

import enum
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["ANYONE", "Principal", "Role", "Tokens", "digest"]


class Role(enum.StrEnum):
    """The role of a token.

    An admin may do everything, a reader may see everything except channels, and a sender may
    upload as the sender with its name.
    """

    ADMIN = "admin"
    READER = "reader"
    SENDER = "sender"


@dataclass(frozen=True, slots=True)
class Principal:
    """The owner of a token. ``sender`` is the only sender it may use; None for any or none."""

    name: str
    role: Role

    @property
    def sender(self) -> str | None:
        """The sender of all its uploads; None if it may use any."""
        return self.name if self.role is Role.SENDER else None

    @property
    def may_read(self) -> bool:
        """Whether it may query and follow."""
        return self.role is not Role.SENDER

    @property
    def may_upload(self) -> bool:
        """Whether it may upload log entries and notifications."""
        return self.role is not Role.READER


ANYONE: Final = Principal("anyone", Role.ADMIN)
"""The principal on loopback if there are no tokens."""


class Tokens:
    """The tokens of the file at one time."""

    def __init__(
        self,
        hashes: Iterable[tuple[str, Principal]] = (),
        *,
        ends: Mapping[str, float] | None = None,
        count: int | None = None,
    ) -> None:
        """Take pairs of the SHA-256 of a token, in hexadecimal, and its owner.

        ``ends`` are the times (s since the epoch) from which tokens are no longer valid, by hash.
        ``count`` is the number of tokens in the file, if it has more.
        """
        # The time of a lookup depends on the hash of a guess, which an attacker cannot choose.
        self._principals = dict(hashes)
        self._ends = dict(ends or {})
        self._count = len(self._principals) if count is None else count
        self.next_end = min(self._ends.values(), default=math.inf)
        """When the next one expires, in s since the epoch."""
        self.used: Callable[[str], None] = lambda _: None
        """Called with the hash of each token that identifies somebody."""

    def __len__(self) -> int:
        # Those that have expired count: without tokens everyone may do everything.
        return self._count

    def identify(self, token: str | None) -> Principal | None:
        """Return the owner of a token, None for an unknown one; ANYONE if there are no tokens."""
        if not self._count:
            return ANYONE
        return self.owner(digest(token)) if token else None

    def owner(self, hash_: str) -> Principal | None:
        """Return the owner of the token with this SHA-256, None if there is no such token."""
        found = self._principals.get(hash_)
        if found is not None:
            self.used(hash_)
        return found

    def has(self, hash_: str) -> bool:
        """Return whether there is a token with this SHA-256, without counting that as its use."""
        return hash_ in self._principals

    def end(self, hash_: str) -> float:
        """Return the time from which the token with this SHA-256 is no longer valid."""
        return self._ends.get(hash_, math.inf)

    def without_expired(self, now: float) -> Tokens:
        """Return those that are still valid at ``now``."""
        found = Tokens(
            ((hash_, owner) for hash_, owner in self._principals.items() if self.end(hash_) > now),
            ends={hash_: end for hash_, end in self._ends.items() if end > now},
            count=self._count,
        )
        found.used = self.used
        return found


def digest(secret: str) -> str:
    """Return the SHA-256 of a token, in hexadecimal."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
