"""A clock that can be set, for one process: no other one, and no machine, notices.

A time namespace has no CLOCK_REALTIME of its own, and libfaketime 0.9.10 (Debian 12 and 13)
makes Python's own ``time.sleep`` fail with EINVAL. So a few lines of C in LD_PRELOAD do it.
"""

from __future__ import annotations

import mmap
import struct
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

__all__ = ["Clock", "build_clock"]

_SOURCE = Path(__file__).with_name("clock.c")


def build_clock(compiler: str, directory: Path) -> Path:
    """Compile what goes into LD_PRELOAD, and return it."""
    library = directory / "clock.so"
    subprocess.run(
        [compiler, "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, _SOURCE],
        check=True,
        timeout=60,
    )
    return library


class Clock:
    """What time it is for the processes that have :attr:`environ`."""

    def __init__(self, library: Path | None, file: Path) -> None:
        self._offset_s = 0.0
        self.environ: Mapping[str, str] = {}
        self._page: mmap.mmap | None = None
        if library is not None:
            file.write_bytes(bytes(8))
            with file.open("r+b") as opened:
                self._page = mmap.mmap(opened.fileno(), 8)
            self.environ = {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(file)}

    @property
    def can_be_set(self) -> bool:
        return self._page is not None

    @property
    def offset_s(self) -> float:
        return self._offset_s

    def now(self) -> float:
        """Return what the processes take for the time, in s since the epoch."""
        return time.time() + self._offset_s

    def set(self, offset_s: float) -> None:
        """Set it so far ahead of (or behind) the machine's, from now on."""
        assert self._page is not None
        self._offset_s = offset_s
        self._page[:] = struct.pack("q", int(offset_s * 1e9))
