"""A relay channel as the API and live pages show it."""

from __future__ import annotations

import msgspec

from monitor.relay.channel import Channel
from monitor.relay.part import Relay

__all__ = ["ChannelEntry", "channel_entry"]


class ChannelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A channel: messages in all and kept, subscribers, s since its last message."""

    name: str
    messages: int
    kept: int
    size_bytes: int
    subscribers: int
    ended: bool
    idle: float | None


def channel_entry(relay: Relay, channel: Channel) -> ChannelEntry:
    """Return the channel's counts as of now."""
    at = relay.channels.last_message_at(channel)
    return ChannelEntry(
        name=channel.name.decode(errors="replace"),
        messages=channel.end,
        kept=len(channel),
        size_bytes=channel.size_bytes,
        subscribers=len(channel.subscribers),
        ended=channel.ended,
        idle=None if at is None else max(0.0, round(relay.now() - at, 3)),
    )
