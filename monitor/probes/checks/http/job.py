"""The keys of jobs of the kind http."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from monitor.errors import SettingError
from monitor.probes.headers import verify_headers
from monitor.probes.matching import verify_expression
from monitor.probes.tls import TlsKeys
from monitor.probes.urls import split_url
from monitor.settings import secret

__all__ = ["HttpJob", "expected_codes"]

_PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
_METHOD_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ-_")


class HttpJob(TlsKeys, frozen=True, kw_only=True, tag="http"):
    """A web page, fetched on a fresh connection, with its redirects."""

    schemes: ClassVar[tuple[str, ...]] = ("http", "https")

    # the request's method
    method: str = "GET"
    # sent with each request; may hold secrets
    headers: Annotated[dict[str, str], secret] = msgspec.field(default_factory=dict)
    # sent with each request
    body: Annotated[str, secret] | None = None
    # status codes that mean up: codes, and ranges such as 200-299
    expected_status: list[int | str] = msgspec.field(default_factory=lambda: ["200-299"])
    # must match the decoded body, in Python's syntax (re.search)
    body_regexp: str | None = None
    # false: the redirect itself is the answer
    follow_redirects: bool = True
    # more than this are down, `too-many-redirects`
    max_redirects: Annotated[int, msgspec.Meta(ge=0, le=100)] = 10
    # limit for the decompressed body; a longer one is down
    max_body_bytes: Annotated[int, msgspec.Meta(ge=1, le=1 << 30)] = 1_048_576
    # http://[user:password@]host:port or socks5://...; the environment's proxies are not used
    proxy: Annotated[str, secret] | None = None
    # 2 requires HTTP/2, 1.1 forbids it
    http_version: Literal["any", "1.1", "2"] = "any"

    def verify(self) -> None:
        """Check method, headers, proxy, statuses and regular expression, too."""
        super().verify()
        if not self.method or not set(self.method) <= _METHOD_LETTERS:
            raise SettingError(("method",), f"{self.method!r} is not a method such as GET")
        verify_headers(self.headers)
        expected_codes(self.expected_status)
        verify_expression(self.body_regexp, ("body_regexp",))
        if self.proxy is not None:
            try:
                split_url(self.proxy, _PROXY_SCHEMES, port=True)
            except SettingError:
                # Its own words would show the proxy's password where there is no scheme.
                schemes = ", ".join(_PROXY_SCHEMES)
                problem = f"must be SCHEME://HOST:PORT with one of {schemes}"
                raise SettingError(("proxy",), problem) from None


def expected_codes(items: list[int | str]) -> frozenset[int]:
    """Read codes and ranges such as ``[204, "200-299"]``; raise SettingError with the item."""
    if not items:
        raise SettingError(("expected_status",), "must name at least one status")
    return frozenset().union(*(_parse_range(item, number) for number, item in enumerate(items)))


def _parse_range(item: int | str, number: int) -> range:
    first, dash, last = str(item).strip().partition("-")
    try:
        if not (first.isascii() and first.strip().isdigit()):
            raise ValueError
        low = int(first)
        high = int(last) if dash else low
    except ValueError:
        problem = f'{item!r} is neither a status code nor a range such as "200-299"'
        raise SettingError(("expected_status", number), problem) from None
    if not 100 <= low <= high <= 999:
        problem = f"{item!r} is not within 100 to 999, the lower one first"
        raise SettingError(("expected_status", number), problem)
    return range(low, high + 1)
