"""What to check: a job, checked whole before it ever runs."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

import msgspec

from monitor.errors import SettingError
from monitor.probes.matching import verify_expression
from monitor.settings import Section, hide_url_secrets, secret

__all__ = ["Job", "StatusSet", "compile_expression", "split_url"]

_LONGEST_URL = 8192
_MOST_HEADERS = 100
_DAY_S = 86400.0

JobId = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class Job(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One site to check, as the config, a jobs file or the database has it.

    Whatever of it makes no sense for its kind (a body for tcp) is refused by the kind.
    """

    # names the job, in every result too; never used twice
    id: JobId
    # for people
    name: str = ""
    # http, tcp or websocket
    kind: str = "http"
    # http:// or https://; tcp://host:port, ws:// or wss:// for the other kinds
    url: str
    # of the HTTP request
    method: str = "GET"
    # s between two runs, on a grid that never moves
    interval: Annotated[float, msgspec.Meta(ge=0.1, le=7 * _DAY_S)] = 60.0
    # s for one attempt, from its start to the last byte
    timeout: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 10.0
    # tries more before "down" is reported
    retries: Annotated[int, msgspec.Meta(ge=0, le=10)] = 0
    # status codes that mean up, one by one or as ranges
    expected_status: list[int | str] = msgspec.field(default_factory=lambda: ["200-299"])
    # what must be found in the body, in Python's syntax (re.search)
    body_regexp: str | None = None
    # sent with each request; may hold secrets
    headers: Annotated[dict[str, str], secret] = msgspec.field(default_factory=dict)
    # sent with each request
    body: Annotated[str, secret] | None = None
    # or take the redirect itself as the answer
    follow_redirects: bool = True
    # more are down, `too-many-redirects`
    max_redirects: Annotated[int, msgspec.Meta(ge=0, le=100)] = 10
    # whether the certificate must be valid and name the host
    verify_tls: bool = True
    # who signs the site's certificate, where the system's authorities do not
    ca_file: str | None = None
    # which addresses of the host are tried
    ip_version: Literal["any", "4", "6"] | Literal[4, 6] = "any"
    # what is spoken to the site
    http_version: Literal["any", "1.1", "2"] = "any"
    # http://[user:password@]host:port or socks5://...; the environment's proxies are not used
    proxy: Annotated[str, secret] | None = None
    # of the decompressed body; a longer one is down
    max_body_bytes: Annotated[int, msgspec.Meta(ge=1, le=1 << 30)] = 1_048_576
    # whether it is checked at all
    active: bool = True

    def verify(self) -> None:
        """Check the whole job with its kind's own rules; raise SettingError with the key."""
        from monitor.probes.checks import load_kind

        check = load_kind(self.kind)
        for key in ("name", "body_regexp", "body"):
            # No database holds it as text; `\0` in a regular expression means the same.
            if "\0" in (getattr(self, key) or ""):
                raise SettingError((key,), "must not contain NUL")
        compile_expression(self.body_regexp)
        StatusSet.parse(self.expected_status)
        _verify_headers(self.headers)
        check.verify(self)

    @property
    def shown_url(self) -> str:
        """Return the URL as results, logs and pages may show it."""
        return hide_url_secrets(self.url)

    @property
    def title(self) -> str:
        """Return what to call the job where people read it."""
        return f"job {self.id} ({self.name})" if self.name else f"job {self.id}"


class StatusSet:
    """The status codes that mean "up"."""

    def __init__(self, ranges: tuple[range, ...]) -> None:
        self._ranges = ranges

    @classmethod
    def parse(cls, items: list[int | str]) -> StatusSet:
        """Read codes and ranges such as ``[204, "200-299"]``; raise SettingError with the item."""
        if not items:
            raise SettingError(("expected_status",), "must name at least one status")
        return cls(tuple(_parse_range(item, number) for number, item in enumerate(items)))

    def __contains__(self, status: int) -> bool:
        return any(status in found for found in self._ranges)


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


def compile_expression(expression: str | None) -> None:
    """Raise SettingError for a regular expression that is none."""
    if expression is None:
        return
    try:
        verify_expression(expression)
    except ValueError as error:
        raise SettingError(("body_regexp",), str(error)) from None


_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def _verify_headers(headers: dict[str, str]) -> None:
    if len(headers) > _MOST_HEADERS:
        raise SettingError(("headers",), f"more than {_MOST_HEADERS} headers")
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise SettingError(("headers",), f"{name!r} is not a header's name")
        # RFC 9110 5.5: CR, LF and NUL would end or split the header.
        if any(ord(letter) < 32 and letter != "\t" for letter in value):
            raise SettingError(("headers", name), "has a control character")


def split_url(url: str, schemes: tuple[str, ...], *, port: bool = False) -> SplitResult:
    """Take a job's URL apart; raise SettingError for one that is none of ``schemes``.

    ``port`` says that a port must be there, as for kinds without a usual one.
    """

    def refuse(problem: str) -> SettingError:
        return SettingError(("url",), f"{hide_url_secrets(url)!r} {problem}")

    if len(url) > _LONGEST_URL:
        raise SettingError(("url",), f"longer than {_LONGEST_URL} characters")
    if any(ord(letter) <= 32 or ord(letter) == 127 for letter in url):
        raise SettingError(("url",), "has a space or a control character")
    try:
        parts = urlsplit(url)
        number = parts.port
        host = parts.hostname
    except ValueError as error:
        raise refuse(f"is not a URL: {error}") from None
    if parts.scheme not in schemes:
        wanted = " or ".join(f"{scheme}://" for scheme in schemes)
        raise refuse(f"must start with {wanted}")
    if not host:
        raise refuse("has no host")
    if port and number is None:
        raise refuse("has no port")
    if number == 0:
        raise refuse("has port 0")
    try:
        host.encode("idna") if ":" not in host else None
    except UnicodeError:
        raise refuse("has a host name that can't be one") from None
    return parts
