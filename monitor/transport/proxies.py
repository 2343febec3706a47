"""Who a client is behind proxies that the operator trusts: PROXY protocol, X-Forwarded-For. Pure.

A proxy of the list may say whose connection it passes on: by a header of the PROXY protocol,
version 1 or 2, in front of everything else (HAProxy's ``send-proxy`` and ``send-proxy-v2``), or by
``X-Forwarded-For``. What others say is not believed.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

from monitor.errors import SettingError
from monitor.settings import Address

__all__ = [
    "MAX_HEADER_BYTES",
    "forwarded_for",
    "is_trusted",
    "read_proxy_header",
    "verify_proxies",
]

MAX_HEADER_BYTES = 4096
"""Bytes of a PROXY header. No proxy sends longer extensions; version 2 allows 64 KiB."""

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_VERSION_1 = b"PROXY "
# The longest header of version 1, with its end of line.
_VERSION_1_BYTES = 107
_ADDRESS_BYTES = {1: 4, 2: 16}
_PORT = re.compile("[0-9]{1,5}")
_MAX_PORT = 65535

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def verify_proxies(proxies: Iterable[str]) -> None:
    """Check the key ``trusted_proxies`` of a section; raises SettingError."""
    for index, proxy in enumerate(proxies):
        try:
            ipaddress.ip_network(proxy)
        except ValueError:
            problem = f"expected an address or a network such as 10.0.0.0/8, not {proxy!r}"
            raise SettingError(("trusted_proxies", index), problem) from None


def is_trusted(address: str, proxies: Iterable[str]) -> bool:
    """Return whether an IP address is one of the ``proxies`` of the config."""
    networks = _networks(tuple(proxies))
    if not networks:
        return False
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    found = mapped or found
    return any(found.version == each.version and found in each for each in networks)


def forwarded_for(headers: Iterable[str], proxies: Iterable[str]) -> Address | None:
    """Return the client that X-Forwarded-For names: the last one that is not itself a proxy.

    The port is 0 if there is none. None if the headers name nobody.
    """
    found = None
    names = [name.strip(" \t") for header in headers for name in header.split(",")]
    # Empty elements of a list mean nothing (RFC 9110, section 5.6.1).
    for name in filter(None, reversed(names)):
        client = _address(name)
        if client is None:
            break
        found = client
        if not is_trusted(client[0], proxies):
            break
    return found


def read_proxy_header(data: bytes) -> tuple[int, Address | None] | None:
    """Return how long the PROXY header is that data begins with, and the client if it names one.

    The length is 0 without a header. None if more data is needed. Raises ValueError for a header
    that is not valid.
    """
    if data.startswith(_SIGNATURE):
        return _version_2(data)
    if data.startswith(_VERSION_1):
        return _version_1(data)
    if _SIGNATURE.startswith(data) or _VERSION_1.startswith(data):
        return None
    return 0, None


def _version_1(data: bytes) -> tuple[int, Address | None] | None:
    end = data.find(b"\r\n", 0, _VERSION_1_BYTES)
    if end < 0:
        if len(data) >= _VERSION_1_BYTES:
            raise ValueError(f"no end of line in {_VERSION_1_BYTES} bytes")
        return None
    words = data[:end].decode("ascii", "replace").split(" ")
    if words[1] == "UNKNOWN":
        return end + 2, None
    port = _port(words[4]) if len(words) == 6 and words[1] in ("TCP4", "TCP6") else None
    if port is None:
        raise ValueError("not what version 1 allows")
    return end + 2, (_host(words[2]), port)


def _version_2(data: bytes) -> tuple[int, Address | None] | None:
    if len(data) < 16:
        return None
    version, command, family = data[12] >> 4, data[12] & 15, data[13] >> 4
    size = 16 + int.from_bytes(data[14:16])
    if version != 2 or command > 1 or size > MAX_HEADER_BYTES:
        raise ValueError("not what version 2 allows")
    if len(data) < size:
        return None
    width = _ADDRESS_BYTES.get(family)
    if command == 0 or width is None:
        # The proxy's own connection, such as a health check, or not TCP.
        return size, None
    if size < 16 + 2 * width + 4:
        raise ValueError("not what version 2 allows")
    port = int.from_bytes(data[16 + 2 * width : 18 + 2 * width])
    return size, (_host(data[16 : 16 + width]), port)


def _address(text: str) -> Address | None:
    host, port = text, "0"
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or "0"
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        return _host(host), _port(port) or 0
    except ValueError:
        return None


def _port(text: str) -> int | None:
    found = int(text) if _PORT.fullmatch(text) else _MAX_PORT + 1
    return found if found <= _MAX_PORT else None


def _host(address: str | bytes) -> str:
    """Return an IP address as it is usually written; raises ValueError.

    A proxy that listens on IPv6 for both has IPv4 clients as ``::ffff:192.0.2.7``. A zone, which
    may be any text and means nothing on another host, is left out.
    """
    if isinstance(address, str):
        address = address.partition("%")[0]
    found = ipaddress.ip_address(address)
    return str(getattr(found, "ipv4_mapped", None) or found)


@lru_cache(maxsize=8)
def _networks(proxies: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(proxy) for proxy in proxies)
