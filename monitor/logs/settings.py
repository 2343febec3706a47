"""The ``logs`` section of the config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec

from monitor.errors import SettingError
from monitor.settings import Address, Bytes, Count, Seconds, Section

__all__ = ["LogsSettings"]

# One field of a PostgreSQL COPY row must fit its memory with room to spare.
_MAX_ENTRY_BYTES = 64 * 1024 * 1024


class LogsSettings(Section, frozen=True, kw_only=True):
    """What is kept, for how long, and how much one client may send."""

    timewindow: Seconds = 60.0
    """s a log entry lives, by its own ``time``."""

    cleanup_interval: Seconds = 5.0
    """s between purges."""

    keep_notifications: Seconds | None = None
    """s a notification lives; None keeps them."""

    max_entry_bytes: Annotated[int, msgspec.Meta(ge=1, le=_MAX_ENTRY_BYTES)] = 262_144
    """Bytes of one entry's message in UTF-8."""

    max_batch: Annotated[int, msgspec.Meta(ge=1, le=50_000)] = 10_000
    """Entries of one upload. All of a commit share one block of 65,536 ids."""

    max_message_bytes: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] = 8 * 1024 * 1024
    """Bytes of one message on the wire; a WebSocket that sends more is closed with 1009. The
    messages of an answer's entries have as many together."""

    max_entries_per_second: Count = 20_000
    """Entries that one connection, and one token, may upload in the long run; each further
    action counts as one. Two seconds' worth may come at once."""

    max_bytes_per_second: Bytes = 32 * 1024 * 1024
    """Bytes of messages that one connection, and one token, may send in the long run."""

    max_pending_bytes: Bytes = 128 * 1024 * 1024
    """Bytes of uploads that wait to be committed, all connections together; past it the
    answer is ``unavailable``."""

    max_followers: Count = 10_000
    """Live tails at once, over both transports."""

    zeromq_uri: Address | None = None
    """Where the same actions are served by a ZeroMQ ROUTER."""

    def verify(self) -> None:
        """Check that one entry fits a message."""
        if self.max_message_bytes < self.max_entry_bytes + 1024:
            raise SettingError(
                ("max_message_bytes",),
                f"{self.max_message_bytes} has no room for an entry of max_entry_bytes"
                f" ({self.max_entry_bytes}) and its 1024 bytes of envelope",
            )

    def with_environment(self, environ: Mapping[str, str]) -> LogsSettings:
        """Return the settings with LOGS_TIMEWINDOW and CLEANUP_INTERVAL, which win."""
        settings = self
        for variable, field in (
            ("LOGS_TIMEWINDOW", "timewindow"),
            ("CLEANUP_INTERVAL", "cleanup_interval"),
        ):
            text = environ.get(variable, "").strip()
            if not text:
                continue
            try:
                seconds = msgspec.convert(text, Seconds, strict=False)
            except msgspec.ValidationError:
                problem = (
                    f"the environment's {variable} is {text[:40]!r}, not a number above 0"
                    " (of seconds, a century at most)"
                )
                raise SettingError((field,), problem) from None
            settings = settings.replace(**{field: seconds})
        return settings
