"""Which proxy of the environment a client uses: none for this machine, and none for secrets."""

from __future__ import annotations

import ipaddress
import urllib.request
from urllib.parse import urlsplit

from monitor.errors import MonitorError
from monitor.settings import hide_url_secrets

__all__ = ["environment_proxy", "through"]

# The variables for each scheme, the first that is set; all_proxy is for the rest.
_VARIABLES = {
    "http": ("http", "all"),
    "https": ("https", "all"),
    "ws": ("ws", "socks", "https", "http", "all"),
    "wss": ("wss", "socks", "https", "all"),
}


def environment_proxy(url: str, *, secret: bool) -> str | None:
    """Return the proxy for a URL, by http_proxy, https_proxy, all_proxy and no_proxy.

    None for loopback, which no proxy of another machine can reach. With ``secret``, a token is
    sent: raises MonitorError if the proxy could read it, because the URL is not https:// or wss://.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    found = urllib.request.getproxies()
    proxy = next(
        (found[name] for name in _VARIABLES.get(parts.scheme, ()) if found.get(name)), None
    )
    if proxy is None or _is_this_machine(host):
        return None
    place = f"{host}:{parts.port}" if parts.port else host
    if urllib.request.proxy_bypass(place):
        return None
    if secret and parts.scheme in ("http", "ws"):
        raise MonitorError(
            f"{hide_url_secrets(url)}: not sending the token unencrypted through the proxy"
            f" {hide_url_secrets(proxy)}; use {parts.scheme}s://, or add {host} to no_proxy"
        )
    return proxy


def through(proxy: str | None) -> str:
    """Return words for an error of a connection through a proxy; empty without one."""
    return f" (through the proxy {hide_url_secrets(proxy)})" if proxy else ""


def _is_this_machine(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified
