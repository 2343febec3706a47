"""The URLs of jobs and of redirects, read as browsers read them, for all kinds.

Source: the WHATWG's URL standard; names of hosts as in UTS 46. Its parser knows the ports of web
schemes only and takes the hosts of others as they are, so a URL of another scheme is read as if
it were one of the web's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from monitor.errors import SettingError
from monitor.libraries import needed_by
from monitor.settings import hide_url_secrets

__all__ = [
    "WEB_SCHEMES",
    "Url",
    "ascii_host",
    "host_and_port",
    "joined_url",
    "parse_url",
    "shown_url",
    "split_scheme",
]

_LONGEST_URL = 8192
_LONGEST_NAME = 253
_LONGEST_LABEL = 63
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
WEB_SCHEMES = frozenset(_PORTS)
"""Their URLs need no slashes after the colon."""
_IGNORED = {ord(letter): None for letter in "\t\n\r"}
_EDGES = "".join(map(chr, range(33)))
_PORT_0 = re.compile(r"[/\\]*[^/\\?#]*:0+(?:[/\\?#]|$)")


@dataclass(frozen=True, slots=True)
class Url:
    """A URL in its parts, all in ASCII; credentials, path and query are percent-encoded.

    ``host`` is a name or an address, without the brackets of IPv6. ``port`` is the scheme's where
    the URL has none, and 0 if the scheme has none either. ``path`` starts with a slash.
    """

    scheme: str
    user: str
    password: str
    host: str
    port: int
    path: str
    query: str

    @property
    def netloc(self) -> str:
        """Host and port as a Host header has them: without the scheme's own port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port in (0, _PORTS.get(self.scheme)) else f"{host}:{self.port}"

    @property
    def bare(self) -> str:
        """The URL without credentials and fragment."""
        query = f"?{self.query}" if self.query else ""
        return f"{self.scheme}://{self.netloc}{self.path}{query}"

    @property
    def credentials(self) -> tuple[bytes, bytes] | None:
        """User and password, decoded, or None."""
        if not (self.user or self.password):
            return None
        return unquote_to_bytes(self.user), unquote_to_bytes(self.password)


def parse_url(url: str, schemes: tuple[str, ...], *, port: bool = False, path: bool = True) -> Url:
    """Take a URL apart; raise SettingError with path ``("url",)`` for one that cannot be used.

    ``port`` requires a port, for schemes without a usual one; without ``path`` nothing may follow.
    """

    def refuse(problem: str) -> SettingError:
        return SettingError(("url",), f"{shown_url(url)!r} {problem}")

    if len(url) > _LONGEST_URL:
        raise SettingError(("url",), f"longer than {_LONGEST_URL} characters")
    scheme, rest = split_scheme(url)
    if scheme not in schemes:
        wanted = " or ".join(f"{scheme}://" for scheme in schemes)
        raise refuse(f"must start with {wanted}")
    found = _parsed(scheme, rest)
    if found is None and not rest.strip("/\\"):
        raise refuse("has no host")
    if found is None:
        raise refuse("is not a URL: its host, its port or its credentials are invalid")
    if b"\0" in b"".join(found.credentials or ()):
        raise refuse("has credentials with NUL")
    if found.port == 0 and port:
        raise refuse("has no port, or port 0")
    if found.port == 0 and _PORT_0.match(rest):
        raise refuse("has port 0")
    if not path and (found.path != "/" or found.query or "#" in rest):
        raise refuse("has more than a host and a port")
    if not _fits(found.host):
        raise refuse("has an invalid host name")
    return found


def split_scheme(url: str) -> tuple[str, str]:
    """Return a URL's scheme, "" without one, and what follows its colon."""
    scheme, colon, rest = url.strip(_EDGES).translate(_IGNORED).partition(":")
    return (scheme.lower(), rest) if colon else ("", scheme)


@lru_cache(maxsize=4096)
def _parsed(scheme: str, rest: str) -> Url | None:
    with needed_by("probes"):
        from pywhatwgurl import URL

    web = scheme in _PORTS
    try:
        url = URL(f"{scheme if web else 'http'}:{rest}")
        number = url.port
        if not number and not web:
            # The parser drops the usual port of the scheme; no two have the same.
            number = URL(f"https:{rest}").port
    except ValueError:
        return None
    return Url(
        scheme,
        url.username,
        url.password,
        url.hostname.strip("[]"),
        int(number) if number else _PORTS.get(scheme, 0),
        url.pathname,
        url.search[1:],
    )


def joined_url(base: Url, location: bytes) -> str:
    """Return where a redirect from ``base`` leads; raise SettingError if that is not a URL."""
    try:
        text = location.decode()
    except UnicodeDecodeError:
        text = "".join(chr(byte) if byte < 128 else f"%{byte:02X}" for byte in location)
    with needed_by("probes"):
        from pywhatwgurl import URL

    if len(text) > _LONGEST_URL:
        raise SettingError(("url",), f"longer than {_LONGEST_URL} characters")
    try:
        return str(URL(text, base.bare).href)
    except ValueError:
        raise SettingError(("url",), f"{shown_url(text)!r} is not a URL") from None


def host_and_port(url: str, schemes: tuple[str, ...]) -> tuple[str, int]:
    """Return both parts of a URL that has no others; raise SettingError as :func:`parse_url`."""
    found = parse_url(url, schemes, port=True)
    if found.path != "/" or found.query or found.user or found.password or "#" in url:
        raise SettingError(("url",), f"must be {found.scheme}://host:port and nothing more")
    return found.host, found.port


def ascii_host(host: str) -> str:
    """Return a host's name or address as DNS and TLS have it; raise ValueError for neither."""
    found = _parsed("tcp", f"//[{host}]" if ":" in host else f"//{host}")
    if (
        found is None
        or host[:1] in ("/", "\\")
        or not _fits(found.host)
        or found != Url("tcp", "", "", found.host, 0, "/", "")
    ):
        raise ValueError(f"{host!r} is not a host")
    return found.host


def shown_url(url: str) -> str:
    """Return a URL as results, logs and pages may show it: without secrets."""
    if "\\" in url or "://" not in url or not url.isprintable():
        # Browsers take these for a URL's parts, too.
        scheme, rest = split_scheme(url)
        url = f"{scheme}://{rest.replace(chr(92), '/').lstrip('/')}" if scheme else url
    return hide_url_secrets(url)


def _fits(host: str) -> bool:
    """Return whether the DNS can have a name. Source: RFC 1035, 2.3.4."""
    name = host.removesuffix(".")
    labels = name.split(".")
    return (
        0 < len(name) <= _LONGEST_NAME and all(0 < len(label) <= _LONGEST_LABEL for label in labels)
    ) or ":" in host
