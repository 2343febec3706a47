"""How fast the disk answers meanwhile: a process that writes 16 KB each 5 ms and waits for them.

What is durable waits for the disk, and a disk that others share may answer late for reasons of its
own. So a measurement of something durable runs this at the same time, on the same file system, and
can tell the one from the other. Linux only.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Disk", "beside"]

_PIECE_BYTES = 16_384
_FILE_BYTES = 4_194_304
_PERIOD_S = 0.005
_STALL_S = 0.020
# How long who was held up by a stall may need to catch up.
_AFTER_S = 0.1


class Disk:
    """The process that writes, until :meth:`stop`.

    ``writes`` has when each write began and how long it took, in s; the instants are those of
    ``time.perf_counter``, which all processes of a Linux share.
    """

    def __init__(self, directory: Path) -> None:
        self.writes: list[tuple[float, float]] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.disk", str(directory)],
            cwd=Path(__file__).resolve().parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def stop(self) -> None:
        """Have what the disk did; does nothing where it is there already."""
        if self._process.returncode is None:
            output, _ = self._process.communicate(timeout=60)
            self.writes = [(begun, took) for begun, took in json.loads(output)]

    def stalled(self, since: float, until: float) -> bool:
        """Tell whether a write of over 20 ms was on its way in this time, or shortly before it."""
        return any(
            begun <= until and since <= begun + took + _AFTER_S
            for begun, took in self.writes
            if took > _STALL_S
        )

    def figures(self) -> dict[str, float]:
        """Return how long the writes took, and which part of the time those of over 20 ms did."""
        took = sorted(took for _, took in self.writes)
        stalls = sum(each for each in took if each > _STALL_S)
        (first, _), (last, last_took) = self.writes[0], self.writes[-1]
        return {
            "disk_p50_ms": round(took[len(took) // 2] * 1000, 2),
            "disk_p99_ms": round(took[int(len(took) * 0.99)] * 1000, 2),
            "disk_max_ms": round(took[-1] * 1000, 2),
            "disk_stalled": round(stalls / (last + last_took - first), 4),
        }


@contextlib.contextmanager
def beside(directory: Path) -> Iterator[Disk]:
    """Watch the disk of ``directory`` while the block runs."""
    disk = Disk(directory)
    try:
        yield disk
    finally:
        disk.stop()


def _watch(directory: Path) -> None:
    writes: list[tuple[float, float]] = []
    stop = threading.Event()
    threading.Thread(target=_wait, args=(stop,), daemon=True).start()
    path = directory / "disk"
    with path.open("wb", buffering=0) as file:
        # The file's length stays: a journal of the file system has no part in it.
        file.write(b"x" * _FILE_BYTES)
        os.fsync(file.fileno())
        offset = 0
        while not stop.wait(_PERIOD_S):
            begun = time.perf_counter()
            os.pwrite(file.fileno(), b"y" * _PIECE_BYTES, offset)
            os.fdatasync(file.fileno())
            writes.append((begun, time.perf_counter() - begun))
            offset = (offset + _PIECE_BYTES) % _FILE_BYTES
    path.unlink()
    print(json.dumps(writes))


def _wait(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()


if __name__ == "__main__":
    _watch(Path(sys.argv[1]))
