"""The interface between the daemon and its parts.

The daemon creates the parts that are on, calls :meth:`Part.check` on all and :meth:`Part.start` on
each (which binds its listeners), and notifies its readiness. Then it runs :meth:`Part.run` of each
in a task. On SIGHUP it calls :meth:`Part.prepare` on all, and if none raises an error, the returned
callables. On SIGTERM it calls :meth:`Part.drain` on all concurrently, cancels the tasks, and
finally closes the bus and the store.

A part that raises anything else, or that hangs, does not hold up the others.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from monitor.metrics import Metric
from monitor.sqlite.file import OpenFile

__all__ = ["Health", "Part", "State", "counted"]


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """Return a number with its noun: ``1 client`` or ``2 clients``."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


class Health(enum.StrEnum):
    """The health of a part, as shown in STATUS=, /healthz and the log."""

    STARTING = "starting"
    OK = "ok"
    DEGRADED = "degraded"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class State:
    """The health of a part and a summary with numbers, such as ``12 clients, 3 channels``.

    For a degraded part the summary has the problem and what the part does about it.
    """

    health: Health
    summary: str = ""


class Part(ABC):
    """A part of the daemon."""

    name: ClassVar[str]
    # The section of the config for prepare(), if its name is not that of the part.
    section: ClassVar[str] = ""

    async def check(self) -> None:  # noqa: B027 - most have nothing more to look at
        """Raise SettingError if the part cannot be started, before anything is bound or opened.

        May read the files that the settings name. Contacts no server and writes nothing, because
        check-config calls it, too, while a daemon runs.
        """

    def remarks(self) -> Sequence[str]:
        """Return what :meth:`check` has found to be left out, one line each."""
        return ()

    @abstractmethod
    async def start(self) -> None:
        """Bind all listeners and prepare to run.

        Raises ListenError if an address is not available, and SettingError for invalid settings. An
        unavailable remote server is not an error: run() retries. After any other exception, which
        is logged, the daemon calls close(), and then this again.
        """

    @abstractmethod
    async def run(self) -> None:
        """Run until cancelled. After an exception, which is logged, the daemon calls it again."""

    @abstractmethod
    async def drain(self) -> None:
        """Accept nothing more and finish pending work; the daemon limits the time."""

    @abstractmethod
    async def close(self) -> None:
        """Release everything at once; called last, even after a failed start."""

    @abstractmethod
    def state(self) -> State:
        """Return the state; cheap, called often."""

    def open_files(self) -> Sequence[OpenFile]:
        """Return SQLite files that must stay at their paths; otherwise the daemon exits."""
        return ()

    def descriptors(self) -> int:
        """Return the maximum number of file descriptors of the part."""
        return 64

    def metrics(self) -> Iterable[Metric]:
        """Return the current metrics; cheap, with a bounded number of labels."""
        return ()

    async def prepare(self, settings: Any) -> Callable[[], None]:
        """Prepare to adopt new settings, of the same type as those of the constructor.

        Reads the files that the new settings name (certificates, job files) and changes nothing.
        Raises SettingError like a start with them. The returned callable cannot fail: it applies
        the settings that a reload can change (see :meth:`Section.adopting`).
        """
        del settings
        return lambda: None
