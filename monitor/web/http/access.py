"""Which requests are allowed: tokens, roles, origins and hosts. Pure.

A page of another site that a user has open can attack in three ways, and each is refused. Its
requests have that site's ``Origin``. A form on it sends the API's cookie. And a name that it makes
resolve to loopback (DNS rebinding) makes the two origins equal, but is in ``Host``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from monitor.tokens import Principal, Role, Tokens, is_loopback
from monitor.transport.origins import is_allowed, origin_of_host, shown_origin

__all__ = [
    "BEATS",
    "COOKIE",
    "SAFE_METHODS",
    "UPLOAD_PATHS",
    "Access",
    "Refusal",
    "credentials_in",
    "headers_by_name",
    "too_many",
]

COOKIE: Final = "recodex_monitor_session"
"""The cookie that carries a login of the live page."""

BEATS: Final = "/heartbeat/"
"""Below it is the key of a job that reports, which is its credential."""

UPLOAD_PATHS: Final = frozenset(("/log", "/notification"))
"""POST here uploads, as the log actions do: every role is admitted, and the service decides."""

SAFE_METHODS: Final = frozenset(("GET", "HEAD", "OPTIONS"))
"""Methods that change nothing."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused: an HTTP status and a sentence; and who made it, if known."""

    status: int
    detail: str
    name: str = ""
    headers: dict[str, str] | None = None


def too_many(wait_s: float) -> Refusal:
    """Return the refusal of a client that sent too many invalid tokens."""
    headers = {"retry-after": str(math.ceil(wait_s))}
    return Refusal(429, "too many invalid tokens; try again later", headers=headers)


class Access:
    """Decides by a request's method, path and headers, whose names are in lower case."""

    def __init__(
        self,
        tokens: Callable[[], Tokens],
        *,
        session: Callable[[str], Principal | None] = lambda _: None,
        origins: Sequence[str] = (),
        open_paths: Sequence[str] = ("/healthz", "/readyz"),
    ) -> None:
        """Take a way to get the current tokens, the owner of a session, other sites' allowed
        origins, and open paths.

        A path in ``open_paths`` that ends with a slash includes all paths below it, except ``/``,
        which is only the page.
        """
        self._tokens = tokens
        self._session = session
        self.origins = tuple(origins)
        folders = [path for path in open_paths if path.endswith("/") and path != "/"]
        self._open_paths = frozenset(open_paths) - frozenset(folders)
        self._open_folders = tuple(folders)

    def check(
        self, method: str, path: str, headers: Mapping[str, str], *, websocket: bool = False
    ) -> Principal | Refusal | None:
        """Return who makes the request, None for anyone on an open path, or a refusal."""
        tokens = self._tokens()
        open_to_all = path in self._open_paths or path.startswith(self._open_folders)
        if not tokens and not _host_is_loopback(headers.get("host", "")):
            if open_to_all:
                return None
            return Refusal(403, "without tokens only requests to a loopback address are allowed")
        origin = headers.get("origin")
        changes = websocket or method not in SAFE_METHODS
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        if scheme:
            bearer = scheme.lower() == "bearer"
            principal = tokens.identify(credentials.strip()) if bearer else None
        else:
            cookie = _cookie(headers.get("cookie", ""), COOKIE)
            principal = self._session(cookie) if cookie and tokens else tokens.identify(None)
            # A form on another site sends the cookie too, but every browser sends the origin of a
            # request that changes something.
            if cookie and changes and origin is None:
                return Refusal(403, "a request by cookie needs an Origin header")
        # A page of another site cannot know a token, which is therefore enough.
        by_token = bool(scheme and tokens and principal is not None)
        if changes and origin is not None and not by_token:
            refused = self._foreign(origin, headers.get("host", ""))
            if refused:
                return Refusal(403, refused)
        if open_to_all:
            return principal
        if principal is None:
            return Refusal(401, "a valid token is needed, as `Authorization: Bearer TOKEN`")
        if method == "POST" and path in UPLOAD_PATHS:
            return principal
        if not websocket:
            if not principal.may_read:
                return Refusal(
                    403, "a sender's token may only upload, over the WebSocket", principal.name
                )
            if changes and principal.role is not Role.ADMIN:
                return Refusal(403, "only an admin's token may change anything", principal.name)
        return principal

    def _foreign(self, origin: str, host: str) -> str:
        """Return why requests from pages of an origin are refused; empty if they are not."""
        scheme = origin.strip().partition("://")[0]
        ours = origin_of_host(scheme, host)
        if is_allowed(origin, [*self.origins, *([ours] if ours else [])]):
            return ""
        return f"requests from pages of {shown_origin(origin)} are not allowed (api.origins)"


def credentials_in(headers: Mapping[str, str]) -> bool:
    """Return whether a request has a token or a session, valid or not."""
    return "authorization" in headers or f"{COOKIE}=" in headers.get("cookie", "")


def headers_by_name(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return values by names in lower case.

    Repeated headers are joined, so that no value is overlooked.
    """
    found: dict[str, str] = {}
    for key, value in pairs:
        name = key.lower()
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _host_is_loopback(host: str) -> bool:
    if not host:
        # HTTP/1.0, which no browser speaks.
        return True
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return is_loopback(name)


def _cookie(header: str, name: str) -> str | None:
    for pair in header.split(";"):
        key, _, value = pair.strip().partition("=")
        if key == name:
            return value.strip('"')
    return None
