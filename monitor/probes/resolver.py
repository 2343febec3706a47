"""Host names to addresses, off the loop, so that a slow name server delays no other check.

libcurl's own resolver is not used: cancelling it blocks until the system's call returns. Besides,
every kind of check measures this phase in the same way.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from monitor.probes.no_result import OwnTroubleError, own_trouble

__all__ = ["ResolveError", "Resolver", "address_version"]

_FAMILIES = {"any": socket.AF_UNSPEC, "4": socket.AF_INET, "6": socket.AF_INET6}
_UNKNOWN = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}


class ResolveError(Exception):
    """A name did not resolve; ``str()`` is a result's error text."""


class Resolver:
    """Resolves names in threads; a lookup that hangs occupies one."""

    def __init__(self, *, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, "resolver")

    async def resolve(self, host: str, ip_version: str) -> list[str]:
        """Return the host's addresses of "any", "4" or "6", each once, in the system's order.

        Raises ResolveError, or OwnTroubleError. The caller bounds the time.
        """
        version = address_version(host)
        if version:
            if ip_version not in ("any", version):
                raise ResolveError(f"no-such-host: {host} is not an IPv{ip_version} address")
            return [host]
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                self._threads, _look_up, host, _FAMILIES[ip_version]
            )
        except socket.gaierror as error:
            word = "no-such-host" if error.errno in _UNKNOWN else "resolve-failed"
            raise ResolveError(f"{word}: {host}: {error.strerror}") from None
        except (UnicodeError, OSError) as error:
            raise ResolveError(f"no-such-host: {host}: {error}") from None
        return found

    def close(self) -> None:
        """Start no more lookups; hanging ones end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)


@lru_cache(maxsize=4096)
def address_version(host: str) -> str:
    """Return "4" or "6" for an address, "" for a name."""
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(host.partition("%")[0]).version)
    return ""


def _look_up(host: str, family: int) -> list[str]:
    # This host in any case, as for browsers. Source: RFC 6761, 6.3.
    if host.rstrip(".") == "localhost" or host.rstrip(".").endswith(".localhost"):
        host = "localhost"
    try:
        answers = socket.getaddrinfo(host, None, family=family, type=socket.SOCK_STREAM)
    except OSError as error:
        # Here, before others have closed descriptors of theirs.
        if (trouble := own_trouble(error)) is not None:
            raise OwnTroubleError(trouble) from None
        raise
    return list(dict.fromkeys(str(address[0]) for *_, address in answers))
