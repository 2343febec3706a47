"""The keys of jobs of the kind http."""

from __future__ import annotations

from functools import partial
from typing import Annotated, ClassVar, Literal

import msgspec

from monitor.errors import SettingError
from monitor.probes.headers import verify_headers, verify_length, verify_name
from monitor.probes.matching import verify_expression, verify_json_expression
from monitor.probes.tls import TlsKeys
from monitor.probes.urls import parse_url
from monitor.settings import secret, verify_each

__all__ = ["PROXY_SCHEMES", "HttpJob", "expected_codes"]

PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
_MOST_HEADERS = 100
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
    # must not match the decoded body
    body_absent_regexp: str | None = None
    # a JMESPath expression that must be true of the decoded body
    json: str | None = None
    # by name of a header: must match one of its values
    header_regexps: dict[str, str] = msgspec.field(default_factory=dict)
    # false: the redirect itself is the answer
    follow_redirects: bool = True
    # more than this are down, `too-many-redirects`
    max_redirects: Annotated[int, msgspec.Meta(ge=0, le=100)] = 10
    # limit for the decompressed body; a longer one is down
    max_body_bytes: Annotated[int, msgspec.Meta(ge=1, le=1 << 30)] = 1_048_576
    # false: ask for no compression, and take the body as it comes
    decode: bool = True
    # true: up at the first byte of the body, for bodies that never end
    stream: bool = False
    # http://[user:password@]host:port or socks5://...; the environment's proxies are not used
    proxy: Annotated[str, secret] | None = None
    # 2 requires HTTP/2, 1.1 forbids it; with http://, 2 starts with HTTP/2 at once
    http_version: Literal["any", "1.1", "2"] = "any"

    def verify(self) -> None:
        """Check method, headers, proxy, statuses and regular expression, too."""
        verify_each(
            super().verify,
            self._verify_method,
            lambda: verify_headers(self.headers),
            self._verify_length,
            lambda: expected_codes(self.expected_status),
            *(
                partial(verify_expression, getattr(self, key), (key,))
                for key in ("body_regexp", "body_absent_regexp")
            ),
            lambda: verify_json_expression(self.json, ("json",)),
            self._verify_header_regexps,
            self._verify_body_keys,
            self._verify_proxy,
            self._verify_tls,
        )

    def _verify_method(self) -> None:
        if not self.method or not set(self.method) <= _METHOD_LETTERS:
            raise SettingError(("method",), f"{self.method!r} is not a method such as GET")

    def _verify_length(self) -> None:
        # Half of a surrogate pair is another check's error.
        body = None if self.body is None else self.body.encode(errors="surrogatepass")
        verify_length(self.headers, body)

    def _verify_header_regexps(self) -> None:
        if len(self.header_regexps) > _MOST_HEADERS:
            raise SettingError(("header_regexps",), f"more than {_MOST_HEADERS} headers")
        names, expressions = self.header_regexps, self.header_regexps.items()
        verify_each(
            *(partial(verify_name, name, ("header_regexps",)) for name in names),
            *(
                partial(verify_expression, each, ("header_regexps", name))
                for name, each in expressions
            ),
        )

    def _verify_body_keys(self) -> None:
        for key in ("body_regexp", "body_absent_regexp", "json"):
            if self.stream and getattr(self, key) is not None:
                raise SettingError((key,), "needs the whole body, which stream: true does not read")
        if self.method == "HEAD":
            self._verify_head()

    def _verify_proxy(self) -> None:
        if self.proxy is not None:
            try:
                parse_url(self.proxy, PROXY_SCHEMES, port=True, path=False)
            except SettingError:
                # Its own words would show the proxy's password where there is no scheme.
                schemes = ", ".join(PROXY_SCHEMES)
                problem = f"must be SCHEME://HOST:PORT and nothing more, with one of {schemes}"
                raise SettingError(("proxy",), problem) from None

    def _verify_tls(self) -> None:
        if not self._may_speak_tls():
            self.refuse_without_tls("use https://, or follow redirects to it")

    def _verify_head(self) -> None:
        """Raise SettingError for a key about a body, which HEAD has none of."""
        if self.body is not None:
            raise SettingError(("body",), "a request with HEAD has no body")
        for key in ("body_regexp", "body_absent_regexp", "json"):
            if getattr(self, key) is not None:
                raise SettingError((key,), "the answer to HEAD has no body")
        if self.stream:
            raise SettingError(("stream",), "the answer to HEAD has no body")

    def _may_speak_tls(self) -> bool:
        """Return whether the job, a redirect or the proxy may lead to TLS."""
        redirects = self.follow_redirects and self.max_redirects > 0
        proxy = self.proxy is not None and self.proxy.strip().lower().startswith("https:")
        return redirects or proxy or parse_url(self.url, self.schemes).scheme == "https"


def expected_codes(items: list[int | str]) -> tuple[range, ...]:
    """Read codes and ranges such as ``[204, "200-299"]``; raise SettingError with the item."""
    if not items:
        raise SettingError(("expected_status",), "must name at least one status")
    return tuple(_parse_range(item, number) for number, item in enumerate(items))


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
