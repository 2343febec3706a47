"""A daemon with every part on that is never started, to list what it serves and measures."""

from __future__ import annotations

from monitor.aggregation.settings import AggregationSettings
from monitor.alerts.settings import AlertsSettings
from monitor.bus import KafkaSettings
from monitor.cluster.settings import ClusterSettings
from monitor.daemon.assembly import PARTS, Services
from monitor.daemon.config import Config
from monitor.logs.settings import LogsSettings
from monitor.probes.settings import ProbesSettings
from monitor.relay.settings import RelaySettings
from monitor.web.context import PartsStatus
from monitor.web.settings import ApiSettings

__all__ = ["assembled"]


def assembled() -> Services:
    """Return all parts, created but not started, and the services they share."""
    config = Config(
        relay=RelaySettings(topic="relay"),
        kafka=KafkaSettings(),
        probes=ProbesSettings(),
        aggregation=AggregationSettings(),
        cluster=ClusterSettings(),
        logs=LogsSettings(),
        alerts=AlertsSettings(),
        api=ApiSettings(website_mock=True),
    )
    services = Services(config, stop=lambda _: None, status=PartsStatus({}))
    services.parts = [part for make in PARTS if (part := make(services)) is not None]
    return services
