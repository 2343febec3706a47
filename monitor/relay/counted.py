"""The relay's metrics."""

from __future__ import annotations

from collections.abc import Iterable

from monitor.metrics import Metric
from monitor.relay.delivery import Delivery
from monitor.relay.receiver import Receiver
from monitor.relay.saving import Saving
from monitor.relay.server import Server

__all__ = ["relay_metrics"]


def relay_metrics(
    receiver: Receiver, server: Server, delivery: Delivery, saving: Saving | None
) -> Iterable[Metric]:
    """Yield what the relay counts."""
    channels, feed = delivery.channels, delivery.feed
    rejected = {**receiver.rejected, **delivery.faults}
    yield Metric("relay_clients", "gauge", "Connected clients", [({}, server.client_count)])
    yield Metric("relay_channels", "gauge", "Channels kept", [({}, len(channels))])
    yield Metric(
        "relay_history_bytes",
        "gauge",
        "Histories, empty channels and subscriptions, bookkeeping included",
        [({}, channels.counted_bytes)],
    )
    yield Metric(
        "relay_waiting_bytes",
        "gauge",
        "Subscriptions and channels without a message, which relay_history_bytes includes",
        [({}, channels.waiting_bytes)],
    )
    yield Metric(
        "relay_connection_bytes",
        "gauge",
        "Connections, and what waits in them for clients that do not read",
        [({}, server.connection_bytes)],
    )
    yield Metric("relay_messages_total", "counter", "Messages received", [({}, receiver.received)])
    yield Metric(
        "relay_deliveries_total",
        "counter",
        "Messages written to clients",
        [({}, delivery.deliveries)],
    )
    yield Metric(
        "relay_rejected_total",
        "counter",
        "Messages and clients refused",
        [({"reason": reason}, count) for reason, count in rejected.items()],
    )
    yield Metric(
        "relay_disconnects_total",
        "counter",
        "Subscribers disconnected, by close code",
        [({"code": code}, count) for code, count in server.disconnects.items()],
    )
    failed = dict(delivery.recoveries)
    exact = failed.pop("")
    yield Metric(
        "relay_recoveries_total",
        "counter",
        "Subscriptions that resumed exactly",
        [({}, exact)],
    )
    yield Metric(
        "relay_recovery_failures_total",
        "counter",
        "Subscriptions not resumed exactly: another epoch, ahead of the history, or trimmed",
        [({"reason": reason}, count) for reason, count in failed.items()],
    )
    yield Metric("relay_feed_up", "gauge", "Whether a broker is connected", [({}, int(feed.up))])
    yield Metric(
        "relay_feed_interruptions_total",
        "counter",
        "Lost connections of brokers, and restarts",
        [({}, feed.interruptions)],
    )

    if saving is not None:
        yield Metric(
            "relay_history_saved_bytes_total",
            "counter",
            "Messages written to the history file",
            [({}, saving.saved_bytes)],
        )
        yield Metric(
            "relay_history_failures_total",
            "counter",
            "Writes to the history file that failed and are retried",
            [({}, saving.failures)],
        )
