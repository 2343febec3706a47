"""Which addresses of a config can't be listened on at once. Pure.

What two listeners would collide on is known before either is bound. A host's name is compared as
a name: what it resolves to is for who binds it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from monitor.errors import SettingError, SettingPath, key_text
from monitor.settings import Address, address_text

__all__ = ["Listener", "require_apart"]

_ALL: Final = ("*", "")
_EVERY_IPV4: Final = "0.0.0.0"  # noqa: S104 - compared, not bound
_EVERY_IPV6: Final = "::"
_LOCALHOST: Final = frozenset(("127.0.0.1", "::1"))


@dataclass(frozen=True, slots=True)
class Listener:
    """An address to listen on, the setting that names it, and what that is by default, if anything.

    libzmq binds otherwise than we do: ``*`` is IPv4 alone, ``::`` is IPv4, too.
    """

    path: SettingPath
    address: Address
    default: Address | None = None
    zeromq: bool = False

    @property
    def hosts(self) -> frozenset[str]:
        """The host's addresses as far as they are known without asking anybody, else its name."""
        host = self.address[0].lower()
        if host in _ALL:
            return frozenset((_EVERY_IPV4,) if self.zeromq else (_EVERY_IPV4, _EVERY_IPV6))
        if host == "localhost":
            return _LOCALHOST
        try:
            number = str(ipaddress.ip_address(host))
        except ValueError:
            return frozenset((host,))
        if number == _EVERY_IPV6 and self.zeromq:
            return frozenset((_EVERY_IPV4, _EVERY_IPV6))
        return frozenset((number,))

    def collides(self, other: Listener) -> bool:
        """Return whether only one of the two can be had, for sure. A port 0 is one that is free."""
        port = self.address[1]
        if port != other.address[1] or port == 0:
            return False
        return any(
            one == two or _covers(self.hosts, two) or _covers(other.hosts, one)
            for one in self.hosts
            for two in other.hosts
        )


def require_apart(listeners: Iterable[Listener]) -> None:
    """Raise SettingError where two of them collide, at the later one that is not as by default."""
    for one, two in combinations(listeners, 2):
        if one.collides(two):
            wrong, other = (two, one) if two.address != two.default else (one, two)
            raise SettingError(
                wrong.path,
                f"{address_text(wrong.address)} can't be had beside {key_text(other.path)}, which"
                f" is {address_text(other.address)}; each needs a port of its own",
            )


def _covers(hosts: frozenset[str], host: str) -> bool:
    """Whether what listens on ``hosts`` has all addresses of a kind that ``host`` is of."""
    if ":" in host:
        return _EVERY_IPV6 in hosts
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        # A name may have addresses of one kind alone, and which is not known here.
        return hosts >= {_EVERY_IPV4, _EVERY_IPV6}
    return _EVERY_IPV4 in hosts
