"""The ``aggregation`` section."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

import msgspec

from monitor.aggregation.fields import Measure, measure
from monitor.errors import SettingError
from monitor.settings import Reloadable, Seconds, Section, verify_each

__all__ = ["AggregationSettings", "KeepMetrics", "MeasuredField"]

Granularity = Literal["minute", "hour", "day"]
FlushMessages = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
Function = Annotated[
    str, msgspec.Meta(pattern=r"^(min|max|avg|sum|p(?!0+(\.0+)?$)\d{1,2}(\.\d{1,3})?)$")
]
Fields = Annotated[list["MeasuredField"], msgspec.Meta(max_length=20)]
Keep = Annotated[float, msgspec.Meta(ge=3600, le=3_200_000_000)]


class KeepMetrics(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the metrics of each granularity are kept, in s; null keeps them indefinitely."""

    # s to keep windows of a minute
    minute: Keep | None = 2_592_000
    # s to keep windows of an hour
    hour: Keep | None = 31_536_000
    # s to keep windows of a day
    day: Keep | None = None


class MeasuredField(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number of each result that is counted like the response time."""

    # its name in the result, with dots: duration, phases.tls
    field: str
    # what the API shows of it: min, max, avg, sum, and percentiles as p95 or p99.9
    functions: Annotated[list[Function], msgspec.Meta(min_length=1, max_length=20)]


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
    # other numbers of a result to measure
    fields: Reloadable[Fields] = msgspec.field(default_factory=list)

    def measures(self) -> tuple[Measure, ...]:
        """Return what to count of each result; raises ValueError for an unknown field."""
        return tuple(measure(each.field, each.functions) for each in self.fields)

    def verify(self) -> None:
        """Reject duplicate granularities and empty names."""
        verify_each(
            self._verify_granularities,
            self._verify_fields,
            partial(self._verify_name, "topic"),
            partial(self._verify_name, "group"),
        )

    def _verify_name(self, key: str) -> None:
        if not getattr(self, key):
            raise SettingError((key,), "must not be empty")

    def _verify_granularities(self) -> None:
        for index, granularity in enumerate(self.granularities):
            if granularity in self.granularities[:index]:
                raise SettingError(("granularities", index), f"duplicate granularity {granularity}")

    def _verify_fields(self) -> None:
        for index, each in enumerate(self.fields):
            try:
                measure(each.field, each.functions)
            except ValueError as error:
                raise SettingError(("fields", index, "field"), str(error)) from None
            if each.field in [other.field for other in self.fields[:index]]:
                raise SettingError(("fields", index, "field"), f"duplicate field {each.field}")
