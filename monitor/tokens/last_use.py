"""When tokens were last used: kept in a file of the state directory, for ``token list``.

The tokens file itself is not the daemon's to write.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from pathlib import Path
from typing import Final

import msgspec

from monitor.files.reading import read_file
from monitor.files.writing import replace_file
from monitor.log_limits import OutageLog
from monitor.settings import state_directory

__all__ = ["LastUse"]

logger = logging.getLogger("monitor.web")

_FILE: Final = "token-use.json"
_LIMIT_BYTES: Final = 16 * 1024 * 1024
_PERIOD_S: Final = 60.0
# Of the hash: enough to tell tokens apart, and useless for anything else.
_KEY_LENGTH: Final = 16


class LastUse:
    """Times (s since the epoch) by the SHA-256 of a token; :meth:`note` costs next to nothing."""

    def __init__(self) -> None:
        self._times: dict[str, float] = {}
        self._changed = False
        self._written_at = -_PERIOD_S
        self._writing = asyncio.Lock()
        self._outage = OutageLog(logger)

    def note(self, hash_: str) -> None:
        """Note that a token is being used."""
        self._times[hash_[:_KEY_LENGTH]] = time.time()
        self._changed = True

    def of(self, hash_: str) -> float | None:
        """Return when a token was last used, None if that is not known."""
        return self._times.get(hash_[:_KEY_LENGTH])

    def load(self) -> LastUse:
        """Read the file, if it can be read; blocks."""
        for key, at in _read(_path()).items():
            self._times[key] = max(at, self._times.get(key, 0.0))
        return self

    async def save(self, *, at_once: bool = False) -> None:
        """Write the file, at most once a minute unless ``at_once``; a failure is logged."""
        due = at_once or time.monotonic() - self._written_at >= _PERIOD_S
        if not (self._changed and due) or self._writing.locked():
            return
        async with self._writing:
            self._changed, self._written_at = False, time.monotonic()
            try:
                await asyncio.to_thread(_write, _path(), dict(self._times))
            except OSError as error:
                self._outage.failed(f"cannot write {_path()}: {error.strerror}")
            else:
                self._outage.recovered("writing the last use of tokens again")


def _path() -> Path:
    return state_directory() / _FILE


def _read(path: Path) -> dict[str, float]:
    with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
        content = read_file(path, max_bytes=_LIMIT_BYTES)
        return msgspec.json.decode(content, type=dict[str, float])
    return {}


def _write(path: Path, times: dict[str, float]) -> None:
    # Another daemon with the same state may have written it, too.
    for key, at in _read(path).items():
        times[key] = max(at, times.get(key, 0.0))
    replace_file(path, msgspec.json.encode(times), mode=0o640)
