"""The section ``relay`` of the config."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from monitor.errors import SettingError
from monitor.settings import Count, Reloadable, Seconds, Section, verify_each
from monitor.transport.curve import CurveSettings, read_curve_keys
from monitor.transport.origins import verify_origins
from monitor.transport.proxies import verify_proxies
from monitor.transport.tls import TLSSettings, read_tls

__all__ = ["RelaySettings"]

# What Kafka takes as a topic's name.
_TOPIC_KEPT_S = 86_400
_TOPIC = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")


class RelaySettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the relay keeps, for how long, and what it allows."""

    # s that an ended channel stays for late subscribers
    keep_finished: Reloadable[Seconds] = 300.0
    # s that a channel without FINISHED stays after its last message
    keep_idle: Reloadable[Seconds] = 21600.0
    # s after a FAILED that nothing follows (the broker gave up) until the channel ends
    end_after_failed: Reloadable[Seconds] = 60.0
    # messages in the history of one channel; the oldest are dropped first
    max_messages: Reloadable[Count] = 100_000
    # bytes of all histories with bookkeeping; finished, then idle channels are dropped first
    max_history_bytes: Reloadable[Annotated[int, msgspec.Meta(ge=65536, le=2**40)]] = 268_435_456
    # s that a client may read nothing while messages wait, before close 1013
    client_stall: Reloadable[Seconds] = 30.0
    # subscribers at once; more are refused
    max_clients: Reloadable[Count] = 10_000
    # s between pings of a connection; below the time after which a proxy cuts an idle one
    ping_interval: Reloadable[Annotated[float, msgspec.Meta(ge=1, le=3600)]] = 20.0
    # addresses and networks of proxies that may name the client: by the PROXY protocol, version 1
    # or 2, or by X-Forwarded-For
    trusted_proxies: Reloadable[tuple[str, ...]] = ()
    # s for a client to name its channel
    subscribe_timeout: Reloadable[Seconds] = 30.0
    # bytes of one frame of a ZeroMQ message
    max_message_bytes: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] = 65_536
    # Origin headers that may connect, such as https://HOST, "null" or file://; empty allows all
    origins: Reloadable[tuple[str, ...]] = ()
    # wss:// instead of ws://
    tls: TLSSettings | None = None
    # encrypts ZeroMQ, and accepts only known brokers
    curve: CurveSettings | None = None
    # where histories survive a restart
    history_file: str | None = None
    # topic of Kafka through which several relays serve the same channels; needs the section kafka
    topic: str | None = None
    # the old channel "0", command "exit"
    allow_remote_exit: Reloadable[bool] = False

    def verify(self) -> None:
        """Check origins and proxies, and read the certificates and keys that the section names."""
        verify_each(
            lambda: verify_origins(self.origins, hint=" (an empty list allows all)"),
            lambda: verify_proxies(self.trusted_proxies),
            self._verify_topic,
            lambda: self.tls is not None and read_tls(self.tls),
            lambda: self.curve is not None and read_curve_keys(self.curve),
        )

    def _verify_topic(self) -> None:
        if self.topic is not None:
            if not _TOPIC.fullmatch(self.topic):
                raise SettingError(("topic",), "a topic has letters, digits, '.', '_' and '-'")
            if self.history_file is not None:
                raise SettingError(
                    ("history_file",), "conflicts with topic, which keeps the histories"
                )

    def topic_configs(self) -> dict[str, str]:
        """Return Kafka's settings of the topic: how long it keeps what a new relay reads."""
        kept_s = max(2 * (self.keep_idle + self.keep_finished), _TOPIC_KEPT_S)
        return {
            "retention.ms": str(round(kept_s * 1000)),
            # The brokers' clocks, which are the ones that old messages are looked up by.
            "message.timestamp.type": "LogAppendTime",
        }
