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
    """How long the metrics of each granularity stay, in s; null keeps them."""

    # s the windows of a minute stay
    minute: Keep | None = 2_592_000
    # s the windows of an hour stay
    hour: Keep | None = 31_536_000
    # s the windows of a day stay
    day: Keep | None = None


class AggregationSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section ``aggregation``: results from the bus to rows and metrics."""

    # where results come from
    topic: str = "website_availability"
    # consumers of one group share the topic's partitions
    group: str = "recodex-monitor"
    # s at most between a message and its rows
    flush_interval: Reloadable[Seconds] = 10.0
    # at most in one transaction
    flush_messages: Reloadable[FlushMessages] = 20_000
    # the windows that are counted
    granularities: Reloadable[Annotated[list[Granularity], msgspec.Meta(min_length=1)]] = (
        msgspec.field(default_factory=lambda: ["minute", "hour", "day"])
    )
    # s raw results stay; duplicates are known by them, so older ones are rejected
    keep_results: Reloadable[Keep] = 2_592_000
    # s messages that could not be taken stay, with the reason
    keep_rejected: Reloadable[Keep] = 2_592_000
    # how long metrics stay, by granularity
    keep_metrics: Reloadable[KeepMetrics] = KeepMetrics()

    def verify(self) -> None:
        """Refuse a granularity named twice, and empty names."""
        for key in ("topic", "group"):
            if not getattr(self, key):
                raise SettingError((key,), "must not be empty")
        for index, granularity in enumerate(self.granularities):
            if granularity in self.granularities[:index]:
                raise SettingError(("granularities", index), f"{granularity} is there twice")
