"""What routes have access to: the daemon's parts and state, the store, the settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from monitor.metrics import Metric
from monitor.part import Part, State
from monitor.store import Store
from monitor.tokens import TokenFile
from monitor.web.http.access import Access
from monitor.web.http.attempts import Attempts
from monitor.web.http.sessions import Sessions
from monitor.web.settings import ApiSettings

if TYPE_CHECKING:
    from monitor.bus.look import TopicLook
    from monitor.logs.reader import LogReader

__all__ = ["Context", "DaemonStatus", "PartsStatus"]


class DaemonStatus(Protocol):
    """The state of the whole daemon."""

    ready: bool
    draining: bool
    last_reload_successful: bool
    started_at: float

    def states(self) -> Mapping[str, State]:
        """Return the states of the parts, and of what they share, by name."""

    def metrics(self) -> Iterable[Metric]:
        """Return the metrics of each part, and of what they share."""


class PartsStatus:
    """The state of parts that run without a daemon."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self.ready = True
        self.draining = False
        self.last_reload_successful = True
        self.started_at = time.time()
        self._parts = parts

    def states(self) -> Mapping[str, State]:
        """Return the state of each part."""
        return {name: part.state() for name, part in self._parts.items()}

    def metrics(self) -> Iterable[Metric]:
        """Return the parts' metrics."""
        for part in self._parts.values():
            yield from part.metrics()


@dataclass
class Context:
    """What a router may use; without a ``store`` no part keeps anything in a database.

    ``log_reader`` reads the logs of other daemons, if the logs part is off and the database shared.
    """

    settings: ApiSettings
    access: Access
    parts: Mapping[str, Part]
    status: DaemonStatus
    tokens: TokenFile
    sessions: Sessions
    attempts: Attempts
    # Closes the WebSockets of clients that are no longer allowed.
    recheck: Callable[[], None] = lambda: None
    store: Store | None = None
    log_reader: LogReader | None = None
    topics: TopicLook | None = None
    # The settings in force, which a reload replaces.
    current: Callable[[], ApiSettings] | None = None

    def in_force(self) -> ApiSettings:
        """Return the settings as the last reload left them."""
        return self.settings if self.current is None else self.current()

    def has(self, part: str) -> bool:
        """Return whether there may be rows of the part to show.

        Other daemons may write to the same PostgreSQL database: then there may be rows even if
        this daemon does not run the part.
        """
        return part in self.parts or (self.store is not None and self.store.dialect == "postgresql")
