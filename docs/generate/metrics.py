"""The metrics, from the parts that measure them."""

from __future__ import annotations

import asyncio
import ssl

from docs.generate.daemon import assembled
from monitor.daemon.lateness import Lateness
from monitor.metrics import Metric
from monitor.part import Part
from monitor.probes.part import Probes
from monitor.transport.tls import Certificates, ServerContext
from monitor.web.context import PartsStatus
from monitor.web.routes.exposition import PREFIX, own_metrics

__all__ = ["all_metrics", "metrics_table"]

# Labels whose values only appear at run time; a part that has not started has none.
_LABELS = {
    "alert_deliveries_total": ("receiver", "outcome"),
    "alert_open_incidents": ("rule",),
    "build_info": ("version",),
    "bus_published_total": ("topic",),
    "cluster_watch_restarts_total": ("reason",),
    "consumer_expired_total": ("topic",),
    "consumer_lag": ("topic", "partition"),
    "consumer_rejected_total": ("topic",),
    "log_rejected_total": ("reason",),
    "model_updates_total": ("type",),
    "part_up": ("part",),
    "probe_results_total": ("up",),
    "relay_disconnects_total": ("code",),
    "relay_rejected_total": ("reason",),
    "web_handshakes_refused_total": ("reason",),
}


def all_metrics() -> list[Metric]:
    """Return every metric of a daemon with all parts on."""
    services = assembled()
    found = [*own_metrics(PartsStatus({})), *Lateness().metrics(), *services.metrics()]
    for listener in ("relay", "web"):
        certificates = Certificates(ServerContext(ssl.PROTOCOL_TLS_SERVER))
        found.extend(certificates.metrics(f"{listener}_certificate_expires_at_seconds"))
    for part in services.parts:
        found.extend(asyncio.run(_of(part)))
    unique = {metric.name: metric for metric in found}
    return [unique[name] for name in sorted(unique)]


async def _of(part: Part) -> list[Metric]:
    if not isinstance(part, Probes):
        return list(part.metrics())
    # The runner measures, and only exists once started; without a job it does nothing.
    await part.start()
    try:
        return list(part.metrics())
    finally:
        await part.close()


def labels(metric: Metric) -> tuple[str, ...]:
    """Return the names of a metric's labels."""
    known = [name for values, _ in metric.samples for name in values]
    names = dict.fromkeys(name for name in known if name not in {"le", "__suffix__"})
    return tuple(names) or _LABELS.get(metric.name, ())


def metrics_table() -> str:
    """Return the table of metrics."""
    lines = ["| metric | type | meaning |", "|---|---|---|"]
    for metric in all_metrics():
        names = ",".join(labels(metric))
        name = f"{PREFIX}{metric.name}" + (f"{{{names}}}" if names else "")
        lines.append(f"| `{name}` | {metric.kind} | {metric.help.rstrip('.')} |")
    return "\n".join(lines)
