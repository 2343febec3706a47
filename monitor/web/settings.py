"""The ``api`` section of the config."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from monitor.errors import SettingError
from monitor.settings import Address, Bytes, Count, Seconds, Section

__all__ = ["ApiSettings"]


class ApiSettings(Section, frozen=True, kw_only=True):
    """Where the API listens, who may use it, and how much one client may take."""

    uri: Address = ("127.0.0.1", 9000)
    """Host and port; beyond loopback only with tokens."""

    tokens_file: str | None = "/etc/recodex/monitor/tokens.yml"
    """Hashes of the tokens, made by `token create`; a missing file has none."""

    website_mock: bool = False
    """Whether GET /website_mock plays a site."""

    origins: list[str] = msgspec.field(default_factory=list)
    """Origins of web pages elsewhere that may use the API; the page's own always may."""

    max_connections: Count = 10_000
    """Connections at once, HTTP and WebSocket together."""

    max_body_bytes: Bytes = 1024 * 1024
    """Bytes of a request's body."""

    request_timeout: Seconds = 20.0
    """s from a request's first byte, or the connection, to its last byte."""

    keep_alive: Annotated[int, msgspec.Meta(ge=1, le=86400)] = 75
    """s that a connection may stay idle between requests."""

    client_stall: Seconds = 30.0
    """s a client may take nothing of what waits for it."""

    def verify(self) -> None:
        """Check that every origin is one."""
        for index, origin in enumerate(self.origins):
            parts = urlsplit(origin)
            if not parts.hostname or origin != f"{parts.scheme}://{parts.netloc}":
                problem = "expected scheme://host or scheme://host:port, as browsers send it"
                raise SettingError(("origins", index), problem)
