"""The ``aggregation`` section."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from monitor.errors import SettingError
from monitor.settings import Reloadable, Seconds, Section

__all__ = ["AggregationSettings", "KeepMetrics"]

Granularity = Literal["minute", "hour", "day"]
FlushMessages = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
Keep = Annotated[float, msgspec.Meta(ge=3600, le=3_200_000_000)]


class KeepMetrics(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the metrics of each granularity are kept, in s; null keeps them indefinitely."""

    # s to keep windows of a minute
    minute: Keep | None = 2_592_000
    # s to keep windows of an hour
    hour: Keep | None = 31_536_000
    # s to keep windows of a day
    day: Keep | None = None


class AggregationSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section ``aggregation``: writes results from the bus as rows and metrics."""

    # topic of the results
    topic: str = "website_availability"
    # consumers of one group share the topic's partitions
    group: str = "recodex-monitor"
    # s from a message to its rows, at most
    flush_interval: Reloadable[Seconds] = 10.0
    # most messages in one transaction
    flush_messages: Reloadable[FlushMessages] = 20_000
    # widths of the windows in which results are counted
    granularities: Reloadable[Annotated[list[Granularity], msgspec.Meta(min_length=1)]] = (
        msgspec.field(default_factory=lambda: ["minute", "hour", "day"])
    )
    # s to keep raw results; older results are rejected, because their duplicates are unknown
    keep_results: Reloadable[Keep] = 2_592_000
    # s to keep rejected messages and their reasons
    keep_rejected: Reloadable[Keep] = 2_592_000
    # how long to keep metrics, by granularity
    keep_metrics: Reloadable[KeepMetrics] = KeepMetrics()

    def verify(self) -> None:
        """Reject duplicate granularities and empty names."""
        for key in ("topic", "group"):
            if not getattr(self, key):
                raise SettingError((key,), "must not be empty")
        for index, granularity in enumerate(self.granularities):
            if granularity in self.granularities[:index]:
                raise SettingError(("granularities", index), f"duplicate granularity {granularity}")
