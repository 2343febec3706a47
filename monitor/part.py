"""What every part of the daemon is to the daemon.

The daemon builds the parts that the config turns on, calls :meth:`Part.check` on all, then
:meth:`Part.start` on each (which binds its listeners), says that it is ready, and then owns
one task a part that awaits :meth:`Part.run`. On SIGHUP it calls :meth:`Part.prepare` on all,
and only if none of them objects the callables that they returned. On SIGTERM it calls
:meth:`Part.drain` on all at once, cancels the tasks, and at last closes the bus and the store.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from monitor.metrics import Metric
from monitor.sqlite.file import OpenFile

__all__ = ["Health", "Part", "State"]


class Health(enum.StrEnum):
    """The health of a part, as STATUS=, /healthz and the log name it."""

    STARTING = "starting"
    OK = "ok"
    DEGRADED = "degraded"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class State:
    """A part's health and a few words with its numbers, such as ``12 clients, 3 channels``.

    For a degraded part the words name what is unavailable and what the part does about it.
    """

    health: Health
    summary: str = ""


class Part(ABC):
    """One of the parts that the daemon runs."""

    name: ClassVar[str]
    # The section of the config that prepare() takes, where it is not called like the part.
    section: ClassVar[str] = ""

    async def check(self) -> None:  # noqa: B027 - most have nothing more to look at
        """Raise SettingError for what must not be started, before anything is bound or opened.

        Reads what the settings name; contacts nobody and writes nothing, as check-config does it
        next to a running daemon.
        """

    @abstractmethod
    async def start(self) -> None:
        """Bind every listener and get ready to run.

        Raises ListenError for an address that cannot be bound, SettingError for settings that
        only now prove wrong. A remote server that is down raises nothing: run() tries again.
        """

    @abstractmethod
    async def run(self) -> None:
        """Work until cancelled. An exception is logged, and the part is run again after a pause."""

    @abstractmethod
    async def drain(self) -> None:
        """Accept nothing more and finish what was begun; the daemon bounds the time."""

    @abstractmethod
    async def close(self) -> None:
        """Close everything at once; called last, also after a failed start."""

    @abstractmethod
    def state(self) -> State:
        """Return the part's health; cheap, called often."""

    def open_files(self) -> Sequence[OpenFile]:
        """Return the SQLite files that must stay at their paths; the daemon ends where not."""
        return ()

    def descriptors(self) -> int:
        """Return how many file descriptors the part may need at most."""
        return 64

    def metrics(self) -> Iterable[Metric]:
        """Return the part's metrics as they are now; cheap, labels bounded."""
        return ()

    async def prepare(self, settings: Any) -> Callable[[], None]:
        """Get ready to adopt new settings, of the same type as the part was made with.

        Reads what the new settings name (certificates, job files), changes nothing, and raises
        SettingError for what a start with them would refuse. The callable that it returns
        cannot fail: it puts in force what a reload takes of them (see :meth:`Section.adopting`).
        """
        del settings
        return lambda: None
