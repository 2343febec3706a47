"""Servers under measurement: start them on a core of their own, read their time and memory.

Linux only. The CPU time is the process's own clock (``clock_getcpuclockid``), which counts
nanoseconds where ``/proc/PID/stat`` counts ticks of 10 ms; both include all threads.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "LOAD_CORE",
    "SERVER_CORE",
    "Server",
    "cpu_seconds",
    "family_cpu_seconds",
    "free_ports",
    "pinned",
    "raise_descriptors",
    "resident_bytes",
    "running",
    "settle",
    "uncollected",
]

SERVER_CORE, LOAD_CORE = 0, 1


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds (user and system, all threads) that a process has used."""
    return time.clock_gettime((~pid << 3) | 2)


def family_cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its children, with those that ended."""
    ticks = 0
    for each in [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]:
        # A child may have ended since; then it is in the times of its parent.
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process, from ``/proc/PID/smaps_rollup``."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no Rss in /proc/{pid}/smaps_rollup")


def settle(pid: int, *, within_s: float = 30.0) -> None:
    """Wait until a process rests: less than 2 ms of CPU in half a second."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        before = cpu_seconds(pid)
        time.sleep(0.5)
        if cpu_seconds(pid) - before < 0.002:
            return
    raise TimeoutError(f"process {pid} is still busy after {within_s:g} s")


def raise_descriptors() -> int:
    """Raise the soft limit on descriptors to the hard one, for children too; return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Keep the collector of garbage from this process, whose pauses nobody wants to measure."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def free_ports(count: int) -> list[int]:
    """Return TCP ports of 127.0.0.1 that nobody listens on now."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def pinned(core: int, command: Sequence[str]) -> list[str]:
    """Return the command, bound to one core where the machine has that many."""
    if (os.cpu_count() or 1) <= max(SERVER_CORE, LOAD_CORE) or not shutil.which("taskset"):
        raise SystemExit("these benchmarks need two cores and taskset (Debian: util-linux)")
    return ["taskset", "-c", str(core), *command]


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs: its process id, and the seconds from its start to READY=1."""

    pid: int
    ready_s: float


@contextlib.contextmanager
def running(
    command: Sequence[str],
    *,
    directory: Path,
    environment: Mapping[str, str] | None = None,
    port: int | None = None,
    within_s: float = 20.0,
) -> Iterator[Server]:
    """Run a server on its core; give it once it is ready, end it with SIGTERM afterwards.

    It is ready when it says READY=1 to ``NOTIFY_SOCKET``; one that knows nothing of
    that is given a ``port``, and is ready when something listens there. What it prints
    is shown only when it fails.
    """
    with contextlib.ExitStack() as held:
        output = held.enter_context(tempfile.TemporaryFile())
        notify = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        address = directory / "notify"
        address.unlink(missing_ok=True)
        notify.bind(str(address))
        started = time.perf_counter()
        process = subprocess.Popen(
            pinned(SERVER_CORE, command),
            env={**os.environ, **(environment or {}), "NOTIFY_SOCKET": str(address)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_until_ready(process, notify, port, started + within_s)
            ready_s = time.perf_counter() - started
            # As systemd does: take what else it says, or its words pile up.
            listener = threading.Thread(target=_listen, args=(notify,), daemon=True)
            listener.start()
            yield Server(process.pid, ready_s)
            if process.poll() is not None:
                raise RuntimeError(f"{command[0]} ended by itself, status {process.returncode}")
        except BaseException:
            output.seek(0)
            print(output.read()[-4000:].decode(errors="replace"))
            raise
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            notify.shutdown(socket.SHUT_RD)


def _listen(notify: socket.socket) -> None:
    notify.settimeout(None)
    with contextlib.suppress(OSError):
        while notify.recv(4096):
            pass


def _wait_until_ready(
    process: subprocess.Popen[bytes], notify: socket.socket, port: int | None, deadline: float
) -> None:
    notify.settimeout(0.002 if port else 0.1)
    while time.perf_counter() < deadline:
        with contextlib.suppress(TimeoutError):
            if b"READY=1" in notify.recv(4096).split(b"\n"):
                return
        if process.poll() is not None:
            raise RuntimeError(f"the server ended at its start, status {process.returncode}")
        if port:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
    raise TimeoutError("the server did not get ready")
