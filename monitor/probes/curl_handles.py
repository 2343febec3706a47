"""libcurl's handles, which are set up once and used again and again."""

from __future__ import annotations

from typing import Any

import pycurl

from monitor.probes.curl_loop import CurlLoop

__all__ = ["CurlHandles"]


class CurlHandles:
    """Handles of single transfers, and what performs them; belongs to the loop's thread."""

    def __init__(self) -> None:
        self._loops: dict[str | None, CurlLoop] = {}
        self._idle: list[Any] = []

    def loop(self, ca_file: str | None) -> CurlLoop:
        """Return what performs transfers that trust ``ca_file``.

        One each: libcurl keeps the authorities that it has read, for one file a multi handle.
        """
        found = self._loops.get(ca_file)
        if found is None:
            found = self._loops[ca_file] = CurlLoop()
        return found

    def take(self) -> Any:
        """Return a handle that is set up for nothing."""
        return self._idle.pop() if self._idle else pycurl.Curl()

    def give(self, easy: Any) -> None:
        """Take a handle back, with nothing of its last transfer in it."""
        easy.reset()
        self._idle.append(easy)

    def close(self) -> None:
        """Let go of libcurl."""
        for easy in self._idle:
            easy.close()
        self._idle.clear()
        for loop in self._loops.values():
            loop.close()
        self._loops.clear()
