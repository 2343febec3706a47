"""A daemon under a service manager's rules: what ends by itself is started again, and noted."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.servers.daemon import DaemonProcess
from tests.waiting import wait_for

__all__ = ["LIFE", "History", "Service", "resources"]

LIFE = "CHAOS_LIFE"
"""The variable of the environment that numbers the lives of a daemon: one process after another."""

_READY_S = 300.0
_STOP_S = 20.0
_AGAIN_S = 0.5
_ANSWERS = ("reload failed", "[monitor.daemon] [INFO] reloaded")


@dataclass
class History:
    """What happened to a daemon; instants are monotonic, in s."""

    ends: list[float] = field(default_factory=list)
    """When its process ended, however: that of life ``n`` at ``ends[n]``."""
    kills: int = 0
    """How often it ended by SIGKILL."""
    problems: list[str] = field(default_factory=list)
    """What it should not have done: ended by itself, or did not end when told."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What a process holds; memory in bytes."""

    resident: int
    descriptors: int
    threads: int


def resources(pid: int) -> Resources:
    """Return what a process holds now."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return Resources(
        int(status["VmRSS"].split()[0]) * 1024,
        len(os.listdir(f"/proc/{pid}/fd")),  # noqa: PTH208 - as many as there are, no paths
        int(status["Threads"]),
    )


class Service:
    """One daemon of the run: its config, its process now, and all that happened to it."""

    def __init__(
        self,
        name: str,
        directory: Path,
        config: Mapping[str, Any],
        *,
        state: Path,
        environ: Mapping[str, str],
    ) -> None:
        self.name = name
        self.directory = directory
        self.config: dict[str, Any] = dict(config)
        self.state = state
        self.history = History()
        self.full = threading.Event()
        """Set while its disk is full: then it may end by itself."""
        self.process: DaemonProcess | None = None
        self._environ = {**environ, "STATE_DIRECTORY": str(state)}
        # Held by a fault that starts or ends the process, and by the watch, which starts it again.
        self.lock = threading.RLock()
        self._closing = threading.Event()
        self._watch = threading.Thread(target=self._supervise, name=f"service-{name}")
        directory.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Start it for the first time, and watch over it from now on."""
        with self.lock:
            self._start()
            self._wait_ready()
        self._watch.start()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def _start(self) -> None:
        if self.process is not None:
            self.process.release()
        environ = {**self._environ, LIFE: str(len(self.history.ends))}
        self.process = DaemonProcess(self.directory, self.config, environ=environ, debug=False)

    def _wait_ready(self) -> None:
        # The watch starts what ends; a disk may be full at the very start.
        def ready() -> bool:
            assert self.process is not None
            if self.process.process.poll() is not None:
                if self.full.is_set() or self._closing.is_set():
                    return True
                raise AssertionError(
                    f"{self.name} ended at its start with {self.process.process.returncode}:"
                    f" {self.process.stderr[-2000:]}"
                )
            return bool(self.process.notices("READY"))

        wait_for(ready, f"{self.name} ready", limit_s=_READY_S)

    @contextlib.contextmanager
    def standing(self) -> Iterator[None]:
        """Hold the process still for what is to be done to it: it runs, and is ready."""
        deadline = time.monotonic() + _READY_S
        while True:
            with self.lock:
                process = self.process
                if process is not None and not self.gone and process.notices("READY"):
                    yield
                    return
            # The watch starts it again meanwhile.
            assert time.monotonic() < deadline, f"{self.name} does not get ready"
            time.sleep(0.1)

    def end(
        self, how: signal.Signals, *, pause_s: float = 0.0, starts_s: Sequence[float] = ()
    ) -> None:
        """End the process, and start it again after the pause.

        Before that, it is started and killed after each of ``starts_s``, ready or not.
        """
        with self.lock if self.full.is_set() else self.standing():
            self._end(how)
            for lasts_s in starts_s:
                self._start()
                self._closing.wait(lasts_s)
                self._end(signal.SIGKILL)
            self._closing.wait(pause_s)
            self._start()
            self._wait_ready()

    def _end(self, how: signal.Signals) -> None:
        assert self.process is not None
        process = self.process.process
        began = time.monotonic()
        process.send_signal(how)
        try:
            status = process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.history.problems.append(f"did not end within {_STOP_S:g} s of {how.name}")
            process.kill()
            status = process.wait(_STOP_S)
        self.history.ends.append(began)
        self.history.kills += status == -signal.SIGKILL
        wanted = {0} if how is signal.SIGTERM else {-how}
        if status not in wanted and not self.full.is_set():
            self.history.problems.append(f"ended with status {status} after {how.name}")

    def kill_children(self) -> int:
        """Kill the processes that it has started, and return how many there were."""
        with self.standing():
            task = Path(f"/proc/{self.pid}/task")
            children = " ".join(file.read_text() for file in task.glob("*/children")).split()
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(child), signal.SIGKILL)
            return len(children)

    def pause(self, lasts_s: float) -> None:
        """Let it stand still."""
        with self.standing():
            assert self.process is not None
            self.process.process.send_signal(signal.SIGSTOP)
            self._closing.wait(lasts_s)
            self.process.process.send_signal(signal.SIGCONT)

    def reload(self, config: Mapping[str, Any] | str) -> bool:
        """Give it another config file and SIGHUP; return whether it took it.

        One that it does not take is put right again.
        """
        with self.standing():
            process = self.process
            assert process is not None
            log_before = len(process.stderr)
            process.write_config(config)
            process.process.send_signal(signal.SIGHUP)

            def answer() -> str | None:
                # READY=1 comes before the log's thread has written why.
                said = process.stderr[log_before:]
                return next((word for word in _ANSWERS if word in said), None)

            refused = (
                wait_for(lambda: answer() or self.gone, f"{self.name} to answer SIGHUP")
                == _ANSWERS[0]
            )
            if not isinstance(config, str) and not refused:
                self.config = dict(config)
            else:
                process.write_config(self.config)
            return not refused

    @property
    def gone(self) -> bool:
        return self.process is not None and self.process.process.poll() is not None

    def _supervise(self) -> None:
        while not self._closing.wait(_AGAIN_S):
            with self.lock:
                if not self.gone or self._closing.is_set():
                    continue
                assert self.process is not None
                status = self.process.process.returncode
                self.history.ends.append(time.monotonic())
                if not self.full.is_set():
                    last = self.process.stderr.strip().rpartition("\n")[2]
                    self.history.problems.append(f"ended by itself with status {status}: {last}")
                with contextlib.suppress(AssertionError):
                    self._start()
                    self._wait_ready()

    def close(self) -> int | None:
        """Stop it for good, orderly, and return its status."""
        if self._closing.is_set():
            return None
        self._closing.set()
        if self._watch.is_alive():
            self._watch.join()
        if self.process is None:
            return None
        status: int | None = None
        try:
            self.process.process.send_signal(signal.SIGCONT)
            self.process.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = self.process.process.wait(_STOP_S)
        finally:
            self.process.release()
        return status
