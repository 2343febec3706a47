"""The ``api`` section of the config."""

from __future__ import annotations

from typing import Annotated

import msgspec

from monitor.errors import SettingError
from monitor.settings import Address, Bytes, Count, Reloadable, Seconds, Section, verify_each
from monitor.transport.origins import verify_origins
from monitor.transport.proxies import verify_proxies
from monitor.transport.tls import ClientTLSSettings, read_tls
from monitor.web.sub_path import verify_root_path

__all__ = ["ApiSettings", "StatusMatch", "StatusPage"]

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
_MOST_TAGS = 100


class StatusMatch(Section, frozen=True, kw_only=True):
    """Which sites everybody may see."""

    # sites with any of these tags; at least one tag
    tags: Reloadable[tuple[_Text, ...]] = ()

    def verify(self) -> None:
        """Check that there are tags: no tags must not mean all sites."""
        if not 0 < len(self.tags) <= _MOST_TAGS:
            raise SettingError(("tags",), f"needs 1 to {_MOST_TAGS} tags")


class StatusPage(Section, frozen=True, kw_only=True):
    """The public status page, which needs no token."""

    # heading of the page and of the feed
    title: Reloadable[_Text] = "Status"
    # which sites it shows
    match: Reloadable[StatusMatch] = StatusMatch()

    def verify(self) -> None:
        """Check the tags."""
        try:
            self.match.verify()
        except SettingError as error:
            raise error.under("match") from None


class ApiSettings(Section, frozen=True, kw_only=True):
    """Where the API listens, who may use it, and how much one client may take."""

    # host and port; beyond loopback only with tokens
    uri: Address = ("127.0.0.1", 9000)
    # hashes of the tokens, made by `token create`; a missing file has none
    tokens_file: Reloadable[str | None] = "/etc/recodex/monitor/tokens.yml"
    # whether GET /website_mock plays a site
    website_mock: bool = False
    # https:// instead of http://
    tls: ClientTLSSettings | None = None
    # the path below which a proxy serves page and API, such as /monitor
    root_path: Reloadable[str] = ""
    # the public page at /status and the badges, which need no token
    status_page: Reloadable[StatusPage | None] = None
    # origins of other web pages that may use the API; the live page always may
    origins: Reloadable[list[str]] = msgspec.field(default_factory=list)
    # addresses and networks of proxies that may name the client: by the PROXY protocol, version 1
    # or 2, or by X-Forwarded-For
    trusted_proxies: Reloadable[tuple[str, ...]] = ()
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
        """Check origins and proxies, and read the certificates."""
        verify_each(
            lambda: verify_proxies(self.trusted_proxies),
            lambda: verify_root_path(self.root_path),
            lambda: self.tls is not None and read_tls(self.tls),
            lambda: verify_origins(self.origins),
            self._verify_status_page,
        )

    def _verify_status_page(self) -> None:
        if self.status_page is not None:
            try:
                self.status_page.verify()
            except SettingError as error:
                raise error.under("status_page") from None
