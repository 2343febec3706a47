"""Ports for the servers of tests: no two that run at once get the same."""

from __future__ import annotations

import fcntl
import itertools
import os
import socket
import tempfile
from pathlib import Path

_COUNT = 20_000
# Of a kernel that gives nearly all ports away, one more is asked for.
_LEAST = 2_000


def free_port() -> int:
    """Return a loopback port that is free, and that no other test gets for a long time.

    It is outside the range from which the kernel takes ephemeral ports, or another test's client
    could have it before the server that it is for.
    """
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    first = max(1024, ephemeral - _COUNT)
    if ephemeral - first < _LEAST:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])
    with (Path(tempfile.gettempdir()) / f"recodex-monitor-ports-{os.getuid()}").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        given = int(file.read() or os.getpid())
        for number in itertools.islice(itertools.count(given + 1), ephemeral - first):
            port = first + number % (ephemeral - first)
            if _is_free(port):
                file.truncate(0)
                file.write(str(number))
                return port
    raise OSError(f"all ports from {first} to {ephemeral - 1} are taken")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
