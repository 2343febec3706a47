"""Tells where another daemon on this machine checks the same jobs into the same spool.

Nothing goes wrong then, and nothing would be noticed: each check happens twice, and a result of
one is taken for a repeat of the other's.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

__all__ = ["Claims"]

# More gaps between the ids are not worth it: the kernel looks through a file's locks one by one.
_MOST_RUNS: Final = 1000
_TAKEN: Final = (errno.EACCES, errno.EAGAIN)


class Claims:
    """Claims by job ids: each is a lock on one byte of a file beside the spool.

    They end with the process, whatever ends it. Only one in a process can be made of a file. For
    any thread.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._busy = threading.Lock()
        self._descriptor: int | None = None

    def take(self, ids: Iterable[int]) -> list[tuple[int, int]]:
        """Claim these ids and no others; return runs (first, last) that others claim.

        What others claim is claimed by a later call, where they have ended by then. Raises
        OSError where there can be no such file or its file system has no locks.
        """
        with self._busy:
            descriptor = self._open()
            fcntl.lockf(descriptor, fcntl.LOCK_UN)
            return [each for run in _runs(ids) for each in _refused(descriptor, *run)]

    def _open(self) -> int:
        if self._descriptor is not None:
            if self._is_there(self._descriptor):
                return self._descriptor
            # Who comes now locks the file that is there.
            os.close(self._descriptor)
            self._descriptor = None
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(self.file, flags, 0o640)
        return self._descriptor

    def _is_there(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.file.stat())
        except OSError:
            return False

    def close(self) -> None:
        """Give all up; while a file system lets :meth:`take` wait, the process's end does."""
        if self._busy.acquire(blocking=False):
            try:
                if self._descriptor is not None:
                    os.close(self._descriptor)
                    self._descriptor = None
            finally:
                self._busy.release()


def _refused(descriptor: int, first: int, last: int) -> list[tuple[int, int]]:
    """Lock what nobody else has locked of ``first`` to ``last``; return the rest, as runs."""
    try:
        exclusive = fcntl.LOCK_EX | fcntl.LOCK_NB
        fcntl.lockf(descriptor, exclusive, last - first + 1, first)
    except OSError as error:
        if error.errno not in _TAKEN:
            raise
    else:
        return []
    if first == last:
        return [(first, last)]
    middle = (first + last) // 2
    before, after = _refused(descriptor, first, middle), _refused(descriptor, middle + 1, last)
    if before and after and before[-1][1] + 1 == after[0][0]:
        return [*before[:-1], (before[-1][0], after[0][1]), *after[1:]]
    return before + after


def _runs(ids: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield the ids' runs without a gap, the first of them where there are very many."""
    # Within a run an id and its place go up together.
    gapless = itertools.groupby(enumerate(sorted(ids)), lambda pair: pair[1] - pair[0])
    for _, run in itertools.islice(gapless, _MOST_RUNS):
        members = [job_id for _, job_id in run]
        yield members[0], members[-1]
