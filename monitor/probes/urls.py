"""The URLs of jobs: taken apart, checked, and written in ASCII."""

from __future__ import annotations

from urllib.parse import SplitResult, quote, urlsplit

from monitor.errors import SettingError
from monitor.settings import hide_url_secrets

__all__ = ["ascii_host", "ascii_text", "host_and_port", "split_url"]

_LONGEST_URL = 8192
_ASCII = "".join(map(chr, range(128)))


def split_url(url: str, schemes: tuple[str, ...], *, port: bool = False) -> SplitResult:
    """Take a URL apart; raise SettingError with path ``("url",)`` for one that cannot be used.

    ``port`` requires a port, for schemes without a usual one.
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
        ascii_host(host)
    except UnicodeError:
        raise refuse("has an invalid host name") from None
    return parts


def host_and_port(url: str, schemes: tuple[str, ...]) -> tuple[str, int]:
    """Return both parts of a URL that has no others; raise SettingError as :func:`split_url`."""
    parts = split_url(url, schemes, port=True)
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise SettingError(("url",), f"must be {parts.scheme}://host:port and nothing more")
    return parts.hostname or "", parts.port or 0


def ascii_host(host: str) -> str:
    """Return a host name as DNS has it; raise UnicodeError for one that it cannot have."""
    return host if ":" in host else host.encode("idna").decode()


def ascii_text(text: str) -> str:
    """Percent-encode what is not ASCII, as UTF-8. Source: the WHATWG's URL standard, 1.3.

    Bytes that were not UTF-8 and were decoded with ``surrogateescape`` stay as they were.
    """
    return text if text.isascii() else quote(text, safe=_ASCII, errors="surrogateescape")
