"""Memory that was needed for a moment goes back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from tests.conftest import missing
from tests.servers.daemon import ROOT

# What a thread's large piece, and then many that are not large, leave behind.
SCRIPT = """
import sys, threading
from pathlib import Path
from monitor.daemon.allocator import give_memory_back

def resident():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Rss:"))

def work():
    bytearray(30 << 20)
    pieces = [b"x" * 100_000 for _ in range(400)]

if sys.argv[1] == "set":
    assert give_memory_back()
before = resident()
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(resident() - before)
"""

# The arenas after eight threads have allocated at the same time.
ARENAS = """
import ctypes, sys, tempfile, threading
from pathlib import Path
from monitor.daemon.allocator import give_memory_back

library = ctypes.CDLL(None)
library.fopen.restype = ctypes.c_void_p
library.fclose.argtypes = [ctypes.c_void_p]
library.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]

if sys.argv[1] == "set":
    assert give_memory_back()
barrier = threading.Barrier(8)

def work():
    barrier.wait()
    pieces = [b"x" * 10_000 for _ in range(100)]
    barrier.wait()

threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
with tempfile.NamedTemporaryFile() as file:
    stream = library.fopen(file.name.encode(), b"w")
    assert library.malloc_info(0, stream) == 0
    library.fclose(stream)
    print(Path(file.name).read_text().count("<heap "))
"""


def said_by(script: str, how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", script, how], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def kept_kib(how: str) -> int:
    return said_by(SCRIPT, how)


@pytest.mark.integration_test
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_a_thread_needed_for_a_moment_is_given_back() -> None:
    if platform.libc_ver()[0] != "glibc":
        missing("glibc, whose bounds these are")
    assert kept_kib("set") < 15_000
    # It is the bounds that do it.
    assert kept_kib("leave") > 30_000


@pytest.mark.integration_test
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_many_threads_share_two_arenas() -> None:
    if platform.libc_ver()[0] != "glibc":
        missing("glibc, whose arenas these are")
    assert said_by(ARENAS, "set") <= 2
    # It is the limit that does it.
    assert said_by(ARENAS, "leave") > 2
