"""The Origin header (RFC 6454): one normal form for config and requests. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from monitor.errors import SettingError
from monitor.validation import printable

__all__ = ["is_allowed", "normal_origin", "origin_of_host", "shown_origin", "verify_origins"]

# What pages without a host send: sandboxed ones, and those of files on a device.
_WITHOUT_HOST = frozenset(("null", "file://"))
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_LONGEST_LABEL = 63
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")


def normal_origin(text: str) -> str:
    """Return an origin as browsers send it: lower case, no default port; raises ValueError.

    The text of the error says what is wrong, without the origin.
    """
    text = text.strip()
    if not text.isascii():
        scheme, separator, rest = text.partition("://")
        name, colon, after = rest.partition(":")
        # Not in lower case: of some letters that would be another name.
        text = f"{scheme}{separator}{_ascii_name(name)}{colon}{after}"
    text = text.lower()
    if text in _WITHOUT_HOST:
        return text
    if "*" in text:
        raise ValueError("wildcards are not supported; list each origin")
    scheme, separator, rest = text.partition("://")
    if not separator or not _SCHEME.fullmatch(scheme):
        raise ValueError("expected SCHEME://HOST or SCHEME://HOST:PORT, as browsers send it")
    if scheme in ("ws", "wss"):
        raise ValueError("expected the page's address, which begins with http:// or https://")
    if re.search(r"[/?#@\s\\]", rest):
        raise ValueError("expected no path, slash or user name after the host")
    parts = urlsplit(text)
    host, port = _host(parts.hostname or ""), parts.port
    if port == 0:
        raise ValueError("expected a port from 1 to 65535")
    shown = "" if port is None or port == _DEFAULT_PORTS.get(scheme) else f":{port}"
    return f"{scheme}://{host}{shown}"


def origin_of_host(scheme: str, host: str) -> str:
    """Return the origin of the pages that a Host header names, empty if it names no host."""
    try:
        return normal_origin(f"{scheme}://{host}")
    except ValueError:
        return ""


def is_allowed(origin: str, allowed: Iterable[str]) -> bool:
    """Return whether an Origin header is among the ``allowed`` origins of the config."""
    try:
        return normal_origin(origin) in _normal(tuple(allowed))
    except ValueError:
        return False


def verify_origins(origins: Iterable[str], *, hint: str = "") -> None:
    """Check the key ``origins`` of a section; raises SettingError."""
    for index, origin in enumerate(origins):
        try:
            normal_origin(origin)
        except ValueError as error:
            more = hint if origin.strip() == "*" else ""
            raise SettingError(("origins", index), f"{error}{more}, not {origin!r}") from None


def shown_origin(origin: str) -> str:
    """Return an Origin header for a line of the log."""
    return printable(origin) or "an empty one"


@lru_cache(maxsize=8)
def _normal(origins: tuple[str, ...]) -> frozenset[str]:
    return frozenset(normal_origin(origin) for origin in origins)


def _ascii_name(name: str) -> str:
    """Return a name as browsers send it (UTS 46); raises ValueError for an invalid one.

    Python's own codec is that of 2003, which makes another host of some names.
    """
    try:
        import idna

        return idna.encode(name, uts46=True).decode("ascii")
    except (ModuleNotFoundError, UnicodeError):
        raise ValueError("expected the host as browsers send it, which has xn-- in it") from None


def _host(name: str) -> str:
    if ":" in name:
        if "%" in name:
            raise ValueError("expected an address without an interface, as browsers send it")
        return f"[{ipaddress.IPv6Address(name)}]"
    if not _HOST.fullmatch(name) or max(map(len, name.split("."))) > _LONGEST_LABEL:
        raise ValueError("expected a host after the scheme")
    if _NUMBER.fullmatch(name.rstrip(".").rpartition(".")[2]):
        # Browsers read it as an address, and send its usual form. Source: the URL standard, 3.5.
        return str(ipaddress.IPv4Address(name))
    return name
