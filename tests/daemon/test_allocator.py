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


def kept_kib(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_a_thread_needed_for_a_moment_is_given_back() -> None:
    if platform.libc_ver()[0] != "glibc":
        missing("glibc, whose bounds these are")
    assert kept_kib("set") < 15_000
    # It is the bounds that do it.
    assert kept_kib("leave") > 30_000
