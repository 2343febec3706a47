"""Checks of arguments, for several commands."""

from __future__ import annotations

import argparse
import math
from datetime import UTC, datetime
from urllib.parse import SplitResult, urlsplit

from monitor.errors import UsageError
from monitor.logs.times import seconds_of
from monitor.settings import hide_url_secrets

__all__ = [
    "channel_name",
    "instant",
    "local_time",
    "log_text",
    "plain_text",
    "seconds",
    "server_url",
]

# A week: more is a typing error, and timeouts in ms are limited to 2**31.
_MAX_WAIT_S = 604800.0
# The limit of the relay.
_MAX_NAME_BYTES = 4096
# The limit of the log service.
_MAX_TEXT = 4096


def seconds(text: str) -> float:
    """Parse seconds, from 0 to a week; an ``argparse`` type."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= _MAX_WAIT_S:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to a week")
    return value


def instant(option: str, text: str) -> float:
    """Return a time in s since the epoch; without an offset it is local; raises UsageError."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    try:
        if at is not None and at.tzinfo is None and not text.isdigit():
            return at.astimezone().timestamp()
        return seconds_of(text)
    except (ValueError, OverflowError, OSError):
        problem = "expected s or ms since the epoch, or ISO 8601 such as 2027-06-30T12:00"
        raise UsageError(f"{option}: {problem}, not {text[:40]!r}") from None


def local_time(at: float) -> str:
    """Return a time (s since the epoch) as people here read it, to the second."""
    return datetime.fromtimestamp(at, UTC).astimezone().isoformat(" ", "seconds")


def plain_text(text: str) -> str:
    """Return the text of an option if it is UTF-8; an ``argparse`` type."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not UTF-8 text") from None
    return text


def log_text(text: str) -> str:
    """Return a search text if the log service accepts it; an ``argparse`` type."""
    if len(text) > _MAX_TEXT:
        raise argparse.ArgumentTypeError(f"longer than {_MAX_TEXT} characters")
    return plain_text(text)


def server_url(option: str, url: str, schemes: tuple[str, ...]) -> SplitResult:
    """Parse the URL of a server; raise UsageError for another scheme than ``schemes``."""
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
    """Return the name of a channel; raise UsageError for one that the relay rejects."""
    if not name:
        raise UsageError("the name of the channel is empty")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise UsageError("the name of the channel is not UTF-8 text") from None
    if size > _MAX_NAME_BYTES:
        raise UsageError(f"the name of the channel is longer than {_MAX_NAME_BYTES} bytes")
    return name
