"""The page's logins: a cookie holds the secret of a session, which logging out ends.

The daemon keeps the hash of the secret and that of the token, in a file of the state directory, so
that logins survive a restart. A session ends with its token.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from typing import Final

import msgspec

from monitor.files.reading import read_file
from monitor.files.writing import replace_file
from monitor.log_limits import OutageLog
from monitor.settings import state_directory
from monitor.tokens import Principal, TokenFile, digest

__all__ = ["SESSION_S", "Sessions"]

logger = logging.getLogger("monitor.web")

SESSION_S: Final = 30 * 86400.0
"""How long a login lasts."""

_FILE: Final = "sessions.json"
_LIMIT_BYTES: Final = 16 * 1024 * 1024
# The oldest are ended beyond that.
_MAX_PER_TOKEN: Final = 100
_MAX: Final = 10_000


class _Session(msgspec.Struct, frozen=True, gc=False):
    token: str
    end: float


class Sessions:
    """All sessions, by the hashes of their secrets; for the thread of the loop."""

    def __init__(self, tokens: TokenFile, *, now: Callable[[], float] = time.time) -> None:
        self._tokens = tokens
        self._now = now
        self._open: dict[str, _Session] = {}  # oldest first
        self._saving = asyncio.Lock()
        self._outage = OutageLog(logger)

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, token: str) -> tuple[str, float]:
        """Begin a session for a valid token; return its secret, and for how many s it lasts."""
        now, hash_ = self._now(), digest(token)
        own = [key for key, session in self._open.items() if session.token == hash_]
        for key in own[: max(0, len(own) - _MAX_PER_TOKEN + 1)]:
            del self._open[key]
        while len(self._open) >= _MAX:
            del self._open[next(iter(self._open))]
        secret = secrets.token_urlsafe(32)
        end = min(now + SESSION_S, self._tokens.current.end(hash_))
        self._open[digest(secret)] = _Session(hash_, end)
        return secret, end - now

    def owner(self, secret: str) -> Principal | None:
        """Return the owner of a session's token, None for a session that does not exist."""
        session = self._open.get(digest(secret))
        if session is None or session.end <= self._now():
            return None
        return self._tokens.current.owner(session.token)

    def end(self, secret: str) -> None:
        """End a session, if it exists."""
        self._open.pop(digest(secret), None)

    def recheck(self) -> bool:
        """End those of tokens that are gone; they stay so if the token comes back.

        Returns whether there were any.
        """
        before = len(self._open)
        known = self._tokens.current.has
        self._open = {key: each for key, each in self._open.items() if known(each.token)}
        return len(self._open) < before

    def load(self) -> None:
        """Read the file, if it can be read; blocks."""
        try:
            content = read_file(state_directory() / _FILE, max_bytes=_LIMIT_BYTES)
            found = msgspec.json.decode(content, type=dict[str, _Session])
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            logger.warning("logins are lost: cannot read %s: %s", _FILE, type(error).__name__)
            return
        now = self._now()
        kept = [item for item in found.items() if item[1].end > now]
        self._open = dict(kept[-_MAX:]) | self._open
        self.recheck()

    async def save(self) -> None:
        """Write the file; a failure is logged."""
        path = state_directory() / _FILE
        async with self._saving:
            now = self._now()
            self._open = {key: each for key, each in self._open.items() if each.end > now}
            content = msgspec.json.encode(self._open)
            try:
                await asyncio.to_thread(replace_file, path, content, mode=0o600)
            except OSError as error:
                problem = f"cannot write {path}: {error.strerror}"
                self._outage.failed(f"{problem}; logins end with this daemon")
            else:
                self._outage.recovered("writing logins again")
