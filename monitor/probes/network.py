"""What all checks share to reach their hosts."""

from __future__ import annotations

import asyncio

from monitor.probes.resolver import Resolver
from monitor.probes.sockets import Sockets

__all__ = ["Network"]


class Network:
    """Names and sockets; made and used in one loop."""

    def __init__(self, *, resolver_threads: int) -> None:
        self.resolver = Resolver(threads=resolver_threads)
        self.sockets = Sockets()
        # Held while an answer is parsed in slices: as many sites as there are slots may flood.
        self.parsing = asyncio.Lock()

    def close(self) -> None:
        """Close both; running checks have been cancelled before."""
        self.resolver.close()
        self.sockets.close()
