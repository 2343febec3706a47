"""The ``logs`` section of the config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec

from monitor.errors import SettingError
from monitor.settings import Address, Bytes, Count, Reloadable, Seconds, Section, verify_each
from monitor.transport.curve import CurveSettings, read_curve_keys

__all__ = ["LogsSettings"]

# One field of a PostgreSQL COPY row must fit into memory, with room to spare.
_MAX_ENTRY_BYTES = 64 * 1024 * 1024


class LogsSettings(Section, frozen=True, kw_only=True):
    """What is kept, for how long, and how much a client may send."""

    # s a log entry is kept, by its own `time`
    timewindow: Reloadable[Seconds] = 60.0
    # s between purges
    cleanup_interval: Reloadable[Seconds] = 5.0
    # s a notification is kept; null keeps them indefinitely
    keep_notifications: Reloadable[Seconds | None] = None
    # bytes of log entries that are kept, each with 100 for its row; the oldest are deleted first
    max_bytes: Reloadable[Bytes | None] = None
    # the same for notifications
    max_notification_bytes: Reloadable[Bytes | None] = 1024 * 1024 * 1024
    # bytes of one entry's message in UTF-8
    max_entry_bytes: Reloadable[Annotated[int, msgspec.Meta(ge=1, le=_MAX_ENTRY_BYTES)]] = 262_144
    # entries of one upload. All of a commit share one block of 65,536 ids
    max_batch: Reloadable[Annotated[int, msgspec.Meta(ge=1, le=50_000)]] = 10_000
    # bytes of one message on the wire; a WebSocket that sends more is closed with 1009. The
    # messages of an answer's entries have as many together
    max_message_bytes: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] = 8 * 1024 * 1024
    # entries that one connection, and one token, may upload in the long run; each further action
    # counts as one. Two seconds' worth may come at once
    max_entries_per_second: Reloadable[Count] = 20_000
    # bytes of messages that one connection, and one token, may send in the long run
    max_bytes_per_second: Reloadable[Bytes] = 32 * 1024 * 1024
    # bytes of uploads that wait to be committed, all connections together; past it the answer is
    # `unavailable`
    max_pending_bytes: Reloadable[Bytes] = 128 * 1024 * 1024
    # live tails at once, over both transports; past it, the token with most of them gives one up
    # for one with fewer
    max_followers: Reloadable[Count] = 10_000
    # where the same actions are served by a ZeroMQ ROUTER
    zeromq_uri: Address | None = None
    # encrypts ZeroMQ, and accepts only known peers
    curve: CurveSettings | None = None

    def verify(self) -> None:
        """Check that one entry fits a message, and read the CURVE keys."""
        verify_each(
            lambda: self.curve is not None and read_curve_keys(self.curve),
            self._verify_sizes,
        )

    def _verify_sizes(self) -> None:
        if self.max_message_bytes < self.max_entry_bytes + 1024:
            raise SettingError(
                ("max_message_bytes",),
                f"{self.max_message_bytes} is too small for an entry of max_entry_bytes"
                f" ({self.max_entry_bytes}) and an envelope of 1024 bytes",
            )

    def with_environment(self, environ: Mapping[str, str]) -> LogsSettings:
        """Return the settings with LOGS_TIMEWINDOW and CLEANUP_INTERVAL, which override them."""
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
                    f"expected a number of seconds above 0 (at most a century) in ${variable}, not"
                    f" {text[:40]!r}"
                )
                raise SettingError((field,), problem) from None
            settings = settings.replace(**{field: seconds})
        return settings
