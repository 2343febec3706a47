"""The daemon's metrics in the formats of Prometheus, by prometheus-client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from monitor import __version__
from monitor.metrics import Metric
from monitor.part import Health
from monitor.web.context import DaemonStatus

__all__ = ["PREFIX", "Exposition", "encoder", "own_metrics"]

PREFIX = "recodex_monitor_"


class Exposition:
    """Renders all metrics as they are now."""

    def __init__(self, status: DaemonStatus) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_DaemonCollector(status))
        ProcessCollector(registry=self._registry)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the text and its media type: OpenMetrics if ``accept`` asks for it."""
        encode, media_type = encoder(accept)
        return encode(self._registry), media_type


def encoder(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    """Return what encodes a registry as ``accept`` asks, and its media type."""
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):  # not a version
        return choose_encoder("")


class _DaemonCollector(Collector):
    def __init__(self, status: DaemonStatus) -> None:
        self._status = status

    def collect(self) -> Iterator[Family]:
        """Yield all families; those of several parts with one name are joined."""
        families: dict[str, Family] = {}
        for metric in (*own_metrics(self._status), *self._status.metrics()):
            family = _family(metric)
            known = families.setdefault(family.name, family)
            if known is not family:
                known.samples.extend(family.samples)
        yield from families.values()


def own_metrics(status: DaemonStatus) -> Iterator[Metric]:
    """Yield the metrics of the daemon itself."""
    states = status.states()
    yield Metric(
        "part_up",
        "gauge",
        "Whether the part works: 1 for ok, 0 for anything else",
        [({"part": name}, state.health is Health.OK) for name, state in states.items()],
    )
    yield Metric(
        "config_last_reload_successful",
        "gauge",
        "Whether the last reload of the config succeeded",
        [({}, status.last_reload_successful)],
    )
    yield Metric("ready", "gauge", "Whether the daemon is ready", [({}, status.ready)])
    yield Metric(
        "uptime_seconds", "gauge", "Time since the start", [({}, time.time() - status.started_at)]
    )
    yield Metric("build_info", "gauge", "What runs here", [({"version": __version__}, 1)])


def _family(metric: Metric) -> Family:
    name = PREFIX + metric.name
    # The name of a counter's family lacks the suffix of its samples.
    base = name.removesuffix("_total") if metric.kind == "counter" else name
    family = Family(base, metric.help, metric.kind)
    suffix = {"counter": "_total", "histogram": "_bucket"}.get(metric.kind, "")
    for labels, value in metric.samples:
        rest = dict(labels)
        family.add_sample(base + rest.pop("__suffix__", suffix), rest, float(value))
    return family
