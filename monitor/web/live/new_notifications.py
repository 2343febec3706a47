"""Whether notifications have changed, for pages that show them."""

from __future__ import annotations

import logging
from collections.abc import Callable

from monitor.errors import MonitorError
from monitor.log_limits import OutageLog
from monitor.store import Connection, Store

__all__ = ["NewNotifications"]

logger = logging.getLogger("monitor.web")

_TIMEOUT_S = 5.0
# Commits may become visible in another order than their ids, but not by more than this.
_RECENT = 200


class NewNotifications:
    """Looks for new notifications in the database.

    ``stored`` counts what this process has committed: on SQLite nobody else writes, so nothing is
    read while it does not change. On PostgreSQL reading the newest ids only costs the end of an
    index.
    """

    def __init__(self, store: Store, stored: Callable[[], int]) -> None:
        self._store = store
        self._stored = stored
        self._seen_stored = -1
        self._seen: tuple[int, int] | None = None
        self._outage = OutageLog(logger)

    def message(self) -> dict[str, object]:
        """Return the message to pages: to load them, and whether the newest may be missing."""
        return {"type": "notifications", "stale": self._outage.problem is not None}

    async def changed(self) -> bool:
        """Look, and return whether pages must load; also after the first look, or a failed one.

        A notification may come after a page has loaded and before the first look.
        """
        stored, was_stale = self._stored(), self._outage.problem is not None
        if self._store.dialect != "postgresql" and stored == self._seen_stored and not was_stale:
            return False
        try:
            found = await self._store.read(_newest, timeout=_TIMEOUT_S)
        except MonitorError as error:
            self._outage.failed(f"cannot look for new notifications: {error}", cause=error)
            return not was_stale
        self._outage.recovered("looking for new notifications again")
        self._seen_stored = stored
        seen, self._seen = self._seen, found
        return was_stale or seen != found


def _newest(connection: Connection) -> tuple[int, int]:
    """Return a value that changes when a recent notification is added or deleted."""
    ((newest, together),) = connection.query(
        "SELECT coalesce(max(id), 0), coalesce(sum(id), 0)"
        " FROM (SELECT id FROM notification ORDER BY id DESC LIMIT %s) AS recent",
        (_RECENT,),
    )
    return int(newest), int(together)
