"""A page as a story: its commands run in their order, and print what it shows."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Any

import yaml

from tests.docs.fences import Command, Fence, commands, shows
from tests.docs.places import Place, has_socket, listener, stop
from tests.waiting import wait_for

__all__ = ["Instead", "Story"]

_LIMIT_S = 60.0
# How long what the page shows may take to come where somebody else has to act first.
_PATIENCE_S = 20.0

# Commands that run until somebody stops them...
_GOES_ON = re.compile(
    r"(make (run|demo)|(\S+=\S+ )*\S*recodex-monitor (-c \S+|start-(producer|consumer) .*"
    r"|follow .*|.*--follow.*)|journalctl .*--follow.*)"
)
# ... of which these are daemons, that say when they are ready...
_DAEMON = re.compile(r"make (run|demo)|\S*recodex-monitor (-c \S+|start-\w+ .*)")
# ... and these say at once what is there, and end by themselves, when what they follow has ended.
_ENDS = re.compile(r"\S*recodex-monitor follow .*")
# Commands that only look, and may look again until there is something to see.
_LOOKS = re.compile(
    r"(\S+=\S+ )*(curl|journalctl|psql|systemctl (status|is-active)"
    r"|\S*recodex-monitor (topic|logs|job (list|show)|probe)) .*",
    re.S,
)

# Commands that have a connection while they run.
_FOLLOWS = re.compile(r"(\S+=\S+ )*\S*recodex-monitor .*--follow.*")

# Secrets that systemd gives the service are where root finds them.
_CHECK = "CREDENTIALS_DIRECTORY=/etc/credstore recodex-monitor check-config -c {}"

# What is done instead of a command that can't run here.
Instead = Callable[[], object]


@dataclass
class _Running:
    fence: Fence
    command: Command
    process: Popen[bytes]
    output: Path

    @property
    def printed(self) -> str:
        return self.output.read_text(errors="replace")

    @property
    def shown(self) -> bool:
        return self.command.expected is None or shows(self.command.expected, self.printed)


class Story:
    """Tells pages in one place.

    ``instead`` has, by pattern, the replacements of commands that cannot run there.
    """

    def __init__(self, place: Place, instead: Mapping[str, Instead] | None = None) -> None:
        self._place = place
        self._instead = instead or {}
        self._running: list[_Running] = []

    @contextmanager
    def telling(self) -> Iterator[Story]:
        """End whatever still runs after the page, and check that it ran well."""
        try:
            yield self
            for running in list(self._running):
                self._finish(running)
        finally:
            for running in self._running:
                stop(running.process)

    def tell(self, fence: Fence) -> None:
        """Do what one block says."""
        if fence.language in {"sh", "console"}:
            for command in commands(fence):
                self._run(fence, command)
        elif fence.file is not None:
            self._write(fence, fence.file)

    def _run(self, fence: Fence, command: Command) -> None:
        for pattern, instead in self._instead.items():
            if re.fullmatch(pattern, command.text, re.S):
                instead()
                return
        if _GOES_ON.fullmatch(command.text):
            self._leave_running(fence, command)
            return
        until = time.monotonic() + _PATIENCE_S
        while True:
            status, printed = self._to_end(fence, command.text)
            good = status == 0 and (command.expected is None or shows(command.expected, printed))
            if good or not _LOOKS.fullmatch(command.text) or time.monotonic() > until:
                break
            time.sleep(0.3)  # there is no event to wait for: somebody else acts
        assert status == 0, f"{fence.place}: {command.text}: exit status {status}\n{printed}"
        assert good, (
            f"{fence.place}: {command.text}\n--- the page shows\n{command.expected}\n"
            f"--- it printed\n{printed}"
        )

    def _to_end(self, fence: Fence, text: str) -> tuple[int, str]:
        with tempfile.TemporaryFile() as output:
            process = self._place.start(text, output)
            try:
                status = process.wait(_LIMIT_S)
            except TimeoutExpired:
                stop(process)
                output.seek(0)
                raise AssertionError(
                    f"{fence.place}: {text}: no end\n{output.read().decode(errors='replace')}"
                ) from None
            output.seek(0)
            return status, output.read().decode(errors="replace")

    def _leave_running(self, fence: Fence, command: Command) -> None:
        output = Path(tempfile.mkstemp(prefix="story-")[1])
        ready = listener(self._place) if _DAEMON.fullmatch(command.text) else None
        with output.open("wb") as file:
            running = _Running(fence, command, self._place.start(command.text, file), output)
        self._running.append(running)
        if _ENDS.fullmatch(command.text):
            # The page's next command comes when it follows already.
            wait_for(lambda: running.printed, f"a first line of {fence.place}: {command.text}")
        if ready is not None:
            with ready:
                try:
                    while b"READY=1" not in ready.recv(65536):
                        pass
                except TimeoutError:
                    raise AssertionError(
                        f"{fence.place}: {command.text}: not ready\n{running.printed}"
                    ) from None

    def _finish(self, running: _Running) -> None:
        where = f"{running.fence.place}: {running.command.text}"
        if _ENDS.fullmatch(running.command.text):
            wait_for(lambda: running.process.poll() is not None, f"the end of {where}")
        elif running.process.poll() is None:
            wait_for(lambda: running.shown, f"what the page shows of {where}")
            if _FOLLOWS.fullmatch(running.command.text):
                # Python itself answers to a Ctrl-C that comes before the program runs.
                pid = running.process.pid
                wait_for(lambda: has_socket(pid) or running.process.poll() is not None, where)
            status = stop(running.process)
            # make says that it was interrupted, and journalctl dies of it.
            assert status == 0 or not _LOOKS.fullmatch(running.command.text), where
            assert "Traceback" not in running.printed, f"{where}\n{running.printed}"
        self._running.remove(running)
        assert running.shown, (
            f"{where}\n--- the page shows\n{running.command.expected}\n"
            f"--- it printed\n{running.printed}"
        )
        assert "Traceback" not in running.printed
        if _ENDS.fullmatch(running.command.text):
            assert running.process.returncode == 0, f"{where}\n{running.printed}"
        running.output.unlink()

    def _write(self, fence: Fence, name: str) -> None:
        """Write a block's file; what a config has already and the block lacks stays."""
        file = self._place.path(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        text = fence.text
        is_config = fence.language == "yaml" and "recodex/monitor" in name
        if is_config and file.exists():
            merged = _merged(yaml.safe_load(file.read_text()) or {}, yaml.safe_load(text) or {})
            text = json.dumps(merged, indent=1)
        # Mode and owner of a file that is there stay.
        file.write_text(text)
        if is_config:
            status, printed = self._to_end(fence, _CHECK.format(name))
            assert status == 0, f"{fence.place}: {printed}"


def _merged(old: Any, new: Any) -> Any:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return {
        key: _merged(old.get(key), new[key]) if key in new else old[key] for key in {**old, **new}
    }
