"""libcurl's handles, reused from one transfer to the next."""

from __future__ import annotations

from typing import Any

import pycurl

from monitor.probes.checks.http.curl_loop import CurlLoop

__all__ = ["CurlHandles"]


class CurlHandles:
    """Handles for transfers, and the loops that perform them; belongs to the loop's thread."""

    def __init__(self) -> None:
        self._loops: dict[str | None, CurlLoop] = {}
        self._idle: list[Any] = []

    def loop(self, ca_file: str | None) -> CurlLoop:
        """Return the loop for transfers that trust ``ca_file``.

        Each file has its own: a multi handle of libcurl caches the authorities of one file.
        """
        found = self._loops.get(ca_file)
        if found is None:
            found = self._loops[ca_file] = CurlLoop()
        return found

    def take(self) -> Any:
        """Return a handle without any options set."""
        return self._idle.pop() if self._idle else pycurl.Curl()

    def give(self, easy: Any) -> None:
        """Reset a handle and keep it for the next transfer."""
        easy.reset()
        self._idle.append(easy)

    def close(self) -> None:
        """Close all handles and loops."""
        for easy in self._idle:
            easy.close()
        self._idle.clear()
        for loop in self._loops.values():
            loop.close()
        self._loops.clear()
