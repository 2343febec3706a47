"""Which addresses need tokens: those that other hosts can reach."""

from __future__ import annotations

import contextlib
import ipaddress

from monitor.errors import SettingError
from monitor.settings import address_text
from monitor.tokens.principals import Tokens

__all__ = ["is_loopback", "require_tokens"]


def is_loopback(host: str) -> bool:
    """Return whether only this machine can connect to ``host``."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host.lower() == "localhost"


def require_tokens(address: tuple[str, int], tokens: Tokens, *, key: str) -> None:
    """Raise SettingError at ``key`` if others can connect and there are no tokens."""
    if not tokens and not is_loopback(address[0]):
        raise SettingError(
            (key,),
            f"{address_text(address)} is open to other hosts, but there are no tokens;"
            " create one with `recodex-monitor token create`, or listen on 127.0.0.1",
        )
