import functools
import operator

from hypothesis import given
from hypothesis import strategies as st

from monitor.metrics import Histogram

BOUNDS = (0.1, 1.0, 10.0)


@given(st.lists(st.floats(0, 100)))
def test_each_bucket_counts_what_is_at_most_its_bound(values: list[float]) -> None:
    histogram = Histogram("seconds", "Time", BOUNDS, {"topic": "t"})
    for value in values:
        histogram.observe(value)
    metric = histogram.metric()
    assert (metric.name, metric.kind, metric.help) == ("seconds", "histogram", "Time")
    assert metric.samples == [
        *(
            ({"topic": "t", "le": f"{bound:g}"}, sum(value <= bound for value in values))
            for bound in BOUNDS
        ),
        ({"topic": "t", "le": "+Inf"}, len(values)),
        ({"topic": "t", "__suffix__": "_sum"}, functools.reduce(operator.add, values, 0.0)),
        ({"topic": "t", "__suffix__": "_count"}, len(values)),
    ]
