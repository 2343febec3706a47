"""How many model events other daemons have written, for pages that show them."""

from __future__ import annotations

from monitor.store import Store

__all__ = ["ModelEvents"]

_TIMEOUT_S = 5.0


class ModelEvents:
    """The events in a shared database; ``newest`` grows with each one."""

    def __init__(self, store: Store) -> None:
        self.newest = 0
        self._store = store

    async def refresh(self) -> None:
        """Read how many there have been; raises MonitorError."""
        rows = await self._store.read(
            lambda connection: connection.query("SELECT coalesce(max(seq), 0) FROM model_event"),
            timeout=_TIMEOUT_S,
        )
        self.newest = int(rows[0][0])
