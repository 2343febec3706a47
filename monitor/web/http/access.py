"""Who may make a request: tokens, roles, origins and hosts. Pure.

Three things can come from a page of another site that a user has open: its requests carry that
site's ``Origin``; a form's carry our cookie; and a name that was made to resolve to loopback
(DNS rebinding) makes the two equal, but shows in ``Host``. Each is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from monitor.tokens import Principal, Role, Tokens, is_loopback

__all__ = ["COOKIE", "SAFE_METHODS", "Access", "Refusal"]

COOKIE: Final = "recodex_monitor_token"
"""The cookie that carries a token for the live page."""

SAFE_METHODS: Final = frozenset(("GET", "HEAD", "OPTIONS"))
"""What changes nothing."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not served: an HTTP status and a sentence; and whose it is, if known."""

    status: int
    detail: str
    name: str = ""


class Access:
    """Decides by a request's method, path and headers; the latter's names in lower case."""

    def __init__(
        self,
        tokens: Callable[[], Tokens],
        *,
        origins: Sequence[str] = (),
        open_paths: Sequence[str] = ("/healthz", "/readyz"),
    ) -> None:
        """Take how to get the tokens in force, foreign origins allowed, and what is open to all.

        A path in ``open_paths`` that ends with a slash stands for all below it, but for ``/``,
        which is the page alone.
        """
        self._tokens = tokens
        self.origins = frozenset(origins)
        folders = [path for path in open_paths if path.endswith("/") and path != "/"]
        self._open_paths = frozenset(open_paths) - frozenset(folders)
        self._open_folders = tuple(folders)

    def check(
        self, method: str, path: str, headers: Mapping[str, str], *, websocket: bool = False
    ) -> Principal | Refusal | None:
        """Return who asks; None for anyone at all on an open path; or why it is refused."""
        tokens = self._tokens()
        open_to_all = path in self._open_paths or path.startswith(self._open_folders)
        if not tokens and not open_to_all and not _host_is_loopback(headers.get("host", "")):
            return Refusal(403, "without tokens only requests to a loopback address are served")
        origin = headers.get("origin")
        changes = websocket or method not in SAFE_METHODS
        if changes and origin is not None and not self._is_ours(origin, headers.get("host", "")):
            return Refusal(403, "requests from pages of this origin are not allowed")
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        if scheme:
            bearer = scheme.lower() == "bearer"
            principal = tokens.identify(credentials.strip()) if bearer else None
        else:
            cookie = _cookie(headers.get("cookie", ""), COOKIE)
            principal = tokens.identify(cookie)
            # A form on another site sends the cookie too, but no browser leaves out where a
            # request that changes something comes from.
            if cookie and changes and origin is None:
                return Refusal(403, "a request by cookie needs an Origin header")
        if open_to_all:
            return principal
        if principal is None:
            return Refusal(401, "a valid token is needed, as `Authorization: Bearer TOKEN`")
        if not websocket:
            if not principal.may_read:
                return Refusal(
                    403, "a sender's token may only upload, over the WebSocket", principal.name
                )
            if changes and principal.role is not Role.ADMIN:
                return Refusal(403, "only an admin's token may change anything", principal.name)
        return principal

    def _is_ours(self, origin: str, host: str) -> bool:
        return origin in self.origins or (
            origin != "null" and urlsplit(origin).netloc.lower() == host.lower() != ""
        )


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
