"""Incidents for live pages: the open ones first, then each one that changed."""

from __future__ import annotations

from functools import partial
from typing import Any

from monitor.alerts.incidents import Incident
from monitor.alerts.reading import changed_incidents, count_open, open_incidents
from monitor.store import Connection, Store

__all__ = ["IncidentFeed"]

_TIMEOUT_S = 5.0
_MOST = 500
# The clocks of several instances differ, and commits take a moment.
_OVERLAP_S = 10.0


class IncidentFeed:
    """Reads incidents while pages are open. A page gets the 500 newest open ones."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: dict[str, Incident] = {}
        self._total = 0
        self._since: float | None = None
        self._news: dict[str, Incident] = {}
        # What was passed on, as far as it can be read again.
        self._passed: dict[str, Incident] = {}

    async def refresh(self) -> None:
        """Read what changed since the last call; raises MonitorError."""
        since = self._since
        found, self._total, newest = await self._store.read(
            partial(_read, since=since), timeout=_TIMEOUT_S
        )
        self._since = max(newest, since or 0.0)
        if since is None or len(found) >= _MOST:
            # The first time, or too many at once: pages get all again.
            found = await self._store.read(partial(open_incidents, limit=_MOST), timeout=_TIMEOUT_S)
            self._open = {each.id: each for each in found}
            self._passed = dict(self._open)
            self._news = dict(self._open)
            return
        for each in found:
            if self._passed.get(each.id) != each:
                self._news[each.id] = each
            if each.resolved_at is None:
                self._open[each.id] = each
            else:
                self._open.pop(each.id, None)
        self._passed = {each.id: each for each in found}

    def all(self) -> dict[str, Any]:
        """Return the message with the open incidents, newest first."""
        items = sorted(self._open.values(), key=lambda each: -each.opened_at)[:_MOST]
        return {"type": "incidents", "reset": True, "open": self._total, "items": items}

    def news(self) -> dict[str, Any] | None:
        """Return the message of the changes since the last call, or None."""
        news, self._news = self._news, {}
        if not news:
            return None
        return {"type": "incidents", "open": self._total, "items": list(news.values())}


def _read(connection: Connection, *, since: float | None) -> tuple[list[Incident], int, float]:
    ((newest,),) = connection.query("SELECT coalesce(max(changed_at), 0) FROM alert_incident")
    found = [] if since is None else changed_incidents(connection, since - _OVERLAP_S, limit=_MOST)
    return found, count_open(connection), float(newest)
