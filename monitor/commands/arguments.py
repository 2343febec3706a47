"""Checks of what stands on the command line, for several commands."""

from __future__ import annotations

import argparse
import math
from urllib.parse import SplitResult, urlsplit

from monitor.errors import UsageError
from monitor.settings import hide_url_secrets

__all__ = ["channel_name", "log_text", "plain_text", "seconds", "server_url"]

# A week: more is a slip, and nothing that waits in ms takes more than 2**31 of them.
_MAX_WAIT_S = 604800.0
# What the relay takes.
_MAX_NAME_BYTES = 4096
# What the log service takes.
_MAX_TEXT = 4096


def seconds(text: str) -> float:
    """Read an option's seconds, from 0 to a week; an ``argparse`` type."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= _MAX_WAIT_S:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0 to a week")
    return value


def plain_text(text: str) -> str:
    """Return an option's text as it is, unless its bytes are no UTF-8; an ``argparse`` type."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not UTF-8 text") from None
    return text


def log_text(text: str) -> str:
    """Return what to look for in the log service, unless it takes none that long."""
    if len(text) > _MAX_TEXT:
        raise argparse.ArgumentTypeError(f"longer than {_MAX_TEXT} characters")
    return plain_text(text)


def server_url(option: str, url: str, schemes: tuple[str, ...]) -> SplitResult:
    """Take a server's URL apart; raise UsageError for one that is none of ``schemes``."""
    wanted = " or ".join(f"{scheme}://HOST:PORT" for scheme in schemes)
    shown = hide_url_secrets(url) or "an empty text"
    refusal = UsageError(f"{option}: {shown} is not {wanted}")
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
        if host and ":" not in host:
            host.encode("idna")
    except ValueError:
        raise refusal from None
    if parts.scheme not in schemes or not host or port == 0 or not url.isprintable():
        raise refusal
    return parts


def channel_name(name: str) -> str:
    """Return a channel's name, or raise UsageError for one that no relay takes."""
    if not name:
        raise UsageError("the channel's name is empty")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise UsageError("the channel's name is not UTF-8 text") from None
    if size > _MAX_NAME_BYTES:
        raise UsageError(f"the channel's name is longer than {_MAX_NAME_BYTES} bytes")
    return name
