from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from monitor.metrics import Metric
from monitor.part import Health, State
from monitor.web.http.docs_page import render
from monitor.web.live.changes import Change, Changes
from monitor.web.routes.exposition import Exposition


class Status:
    def __init__(self, *metrics: Metric, states: dict[str, State] | None = None) -> None:
        self.ready = True
        self.draining = False
        self.last_reload_successful = False
        self.started_at = 0.0
        self._metrics = metrics
        self._states = states or {}

    def states(self) -> dict[str, State]:
        return self._states

    def metrics(self) -> tuple[Metric, ...]:
        return self._metrics


def read(*metrics: Metric, **options: dict[str, State]) -> dict[tuple[str, str], float]:
    text, _ = Exposition(Status(*metrics, **options)).render("text/plain")
    return {
        (sample.name, str(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


values = st.floats(allow_nan=False)


@given(st.dictionaries(st.text(max_size=20), values, max_size=5))
def test_whatever_a_label_holds_what_is_read_is_what_was_given(found: dict[str, float]) -> None:
    metric = Metric(
        "x_total", "counter", "help\nwith a line", [({"l": k}, v) for k, v in found.items()]
    )
    got = read(metric)
    for label, value in found.items():
        assert got["recodex_monitor_x_total", str([("l", label)])] == value


def test_histograms_keep_buckets_sum_and_count_together() -> None:
    samples = [
        ({"le": "1"}, 2.0),
        ({"le": "+Inf"}, 3.0),
        ({"__suffix__": "_sum"}, 4.5),
        ({"__suffix__": "_count"}, 3.0),
    ]
    got = read(Metric("lag_seconds", "histogram", "help", samples))
    assert got["recodex_monitor_lag_seconds_bucket", str([("le", "+Inf")])] == 3
    assert got["recodex_monitor_lag_seconds_sum", "[]"] == 4.5
    assert got["recodex_monitor_lag_seconds_count", "[]"] == 3


def test_metrics_of_one_name_from_two_parts_are_one_family() -> None:
    metrics = [Metric("x", "gauge", "help", [({"part": name}, 1.0)]) for name in ("a", "b")]
    text, _ = Exposition(Status(*metrics)).render("")
    assert text.decode().count("# TYPE recodex_monitor_x ") == 1


def test_a_part_that_is_not_ok_is_not_up() -> None:
    states = {"a": State(Health.OK), "b": State(Health.DEGRADED), "c": State(Health.STARTING)}
    got = read(states=states)
    up = {name: got["recodex_monitor_part_up", str([("part", name)])] for name in states}
    assert up == {"a": 1, "b": 0, "c": 0}
    assert got["recodex_monitor_config_last_reload_successful", "[]"] == 0


def test_changes_of_parts_are_noted_once_with_since_when() -> None:
    changes = Changes()
    changes.parts({"bus": State(Health.STARTING)}, now=1.0)
    changes.parts({"bus": State(Health.OK)}, now=2.0)
    assert changes.total == 0  # a start is not a change
    changes.parts({"bus": State(Health.OK)}, now=3.0)
    found = changes.parts({"bus": State(Health.DEGRADED, "no Kafka")}, now=4.0)
    assert found["bus"].since == 4.0
    assert changes.parts({"bus": State(Health.DEGRADED, "still")}, now=5.0)["bus"].since == 4.0
    (change,) = changes.since(0)
    assert (change.name, change.to, change.detail) == ("bus", "degraded", "no Kafka")
    assert changes.since(1) == []


@given(st.integers(0, 500), st.integers(0, 500))
def test_changes_are_bounded_and_each_is_told_once(first: int, second: int) -> None:
    changes = Changes()
    told = 0
    got: list[Change] = []
    for count in (first, second):
        for _ in range(count):
            changes.add(Change(time=float(changes.total), kind="job", name="a", to="up"))
        got += changes.since(told)
        told = changes.total
    assert [change.time for change in got] == sorted({change.time for change in got})
    assert len(changes.with_older([])) <= 200
    assert len(got) >= min(first, 200) * (first <= 200) + min(second, 200) * (second <= 200)


def test_the_documentation_quotes_nothing_as_markup() -> None:
    document = {
        "info": {"title": "<script>", "version": "1"},
        "paths": {
            "/x/{id}": {
                "get": {
                    "summary": "<b>x",
                    "parameters": [{"name": "<i>", "in": "query", "schema": {"type": "string"}}],
                    "responses": {"200": {"description": "<u>"}},
                }
            }
        },
    }
    page = render(document)
    for tag in ("<script>", "<b>x", "<i>", "<u>"):
        assert tag not in page
