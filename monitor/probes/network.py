"""What all checks share to reach their hosts."""

from __future__ import annotations

import asyncio
import time

from monitor.probes.resolver import Resolver
from monitor.probes.sockets import Sockets

__all__ = ["Network"]


# How long a note counts: what it was about may be gone.
_NOTED_S = 0.05


class Network:
    """Names and sockets; made and used in one loop."""

    def __init__(self, *, resolver_threads: int) -> None:
        self.resolver = Resolver(threads=resolver_threads)
        self.sockets = Sockets()
        # Held while an answer is parsed in slices: as many sites as there are slots may flood.
        self.parsing = asyncio.Lock()
        self._behind: dict[object, float] = {}

    def note(self, watcher: object, *, behind: bool) -> None:
        """Note whether events of its sockets still wait after a watcher's share of a turn."""
        if behind:
            self._behind[watcher] = time.monotonic()
        else:
            self._behind.pop(watcher, None)

    @property
    def behind(self) -> bool:
        """Whether the loop cannot keep up with the events of its sockets."""
        if not self._behind:
            return False
        return time.monotonic() - max(self._behind.values()) < _NOTED_S

    def close(self) -> None:
        """Close both; running checks have been cancelled before."""
        self.resolver.close()
        self.sockets.close()
