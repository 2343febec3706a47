"""Tells where another daemon on this machine checks the same jobs into the same spool.

Nothing goes wrong then, and nothing would be noticed: each check happens twice, and a result of
one is taken for a repeat of the other's.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

__all__ = ["Claims"]

# The kernel looks through a file's locks one by one; no use has as many gaps in its ids.
_MOST_RUNS: Final = 1000
_TAKEN: Final = (errno.EACCES, errno.EAGAIN)


class Claims:
    """Claims by job ids: each is a lock on one byte of a file beside the spool.

    They end with the process, whatever ends it. For one thread at a time; only one in a process
    can be made of a file.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._descriptor: int | None = None

    def take(self, ids: Iterable[int]) -> list[tuple[int, int]]:
        """Claim these ids and no others; return runs (first, last) with some that others claim.

        Raises OSError where there can be no such file or its file system has no locks.
        """
        if self._descriptor is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(self.file, flags, 0o640)
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
        return [run for run in _runs(ids) if not self._lock(*run)]

    def _lock(self, first: int, last: int) -> bool:
        assert self._descriptor is not None
        try:
            exclusive = fcntl.LOCK_EX | fcntl.LOCK_NB
            fcntl.lockf(self._descriptor, exclusive, last - first + 1, first)
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            raise
        return True

    def close(self) -> None:
        """Give all up."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _runs(ids: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield the ids' runs without a gap, the first of them where there are very many."""
    # Within a run an id and its place go up together.
    gapless = itertools.groupby(enumerate(sorted(ids)), lambda pair: pair[1] - pair[0])
    for _, run in itertools.islice(gapless, _MOST_RUNS):
        members = [job_id for _, job_id in run]
        yield members[0], members[-1]
