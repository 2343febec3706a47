"""The ``api`` section of the config."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from monitor.errors import SettingError
from monitor.settings import Address, Bytes, Count, Reloadable, Seconds, Section

__all__ = ["ApiSettings"]


class ApiSettings(Section, frozen=True, kw_only=True):
    """Where the API listens, who may use it, and how much one client may take."""

    # host and port; beyond loopback only with tokens
    uri: Address = ("127.0.0.1", 9000)
    # hashes of the tokens, made by `token create`; a missing file has none
    tokens_file: Reloadable[str | None] = "/etc/recodex/monitor/tokens.yml"
    # whether GET /website_mock plays a site
    website_mock: bool = False
    # origins of other web pages that may use the API; the live page always may
    origins: Reloadable[list[str]] = msgspec.field(default_factory=list)
    # connections at once, HTTP and WebSocket together
    max_connections: Reloadable[Count] = 10_000
    # bytes of a request's body
    max_body_bytes: Reloadable[Bytes] = 1024 * 1024
    # s from a request's first byte, or the connection, to its last byte
    request_timeout: Reloadable[Seconds] = 20.0
    # s that a connection may stay idle between requests
    keep_alive: Annotated[int, msgspec.Meta(ge=1, le=86400)] = 75
    # s that a client may read nothing while data waits for it
    client_stall: Reloadable[Seconds] = 30.0

    def verify(self) -> None:
        """Check the origins."""
        for index, origin in enumerate(self.origins):
            parts = urlsplit(origin)
            if not parts.hostname or origin != f"{parts.scheme}://{parts.netloc}":
                problem = "expected scheme://host or scheme://host:port, as browsers send it"
                raise SettingError(("origins", index), problem)
