"""The series of sites, the alert rules and the dashboards, with the real Prometheus."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain

from tests.ports import free_port
from tests.servers.daemon import ROOT
from tests.waiting import wait_for
from tests.web.whole import Whole, whole

pytestmark = [pytest.mark.integration_test, pytest.mark.timeout(300)]
RULES = ROOT / "packaging/prometheus/recodex-monitor.rules.yml"
DASHBOARDS = sorted((ROOT / "packaging/grafana").glob("*.json"))


@pytest.fixture(scope="module")
def daemon() -> Iterator[Whole]:
    with whole(tokens=True) as running:
        down = {"id": 1, "name": "shop", "url": f"http://127.0.0.1:{free_port()}/"}
        assert running.request("POST", "/job", json=down).status_code == 201
        up = {"id": 2, "name": 'the "blog"', **running.mock()}
        assert running.request("POST", "/job", json=up).status_code == 201
        stopped = {"id": 3, "name": "stopped", **running.mock()}
        assert running.request("POST", "/job", json=stopped).status_code == 201
        running.wait_for_state(1, "down")
        running.wait_for_state(2, "up")
        running.wait_for_state(3, "up")
        assert running.request("POST", "/job/3/stop").status_code == 200
        yield running


class Prometheus:
    """A Prometheus that scrapes a daemon each second; its rules fire at once."""

    def __init__(self, program: str, directory: Path, daemon: Whole) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        rules = yaml.safe_load(RULES.read_text())
        for group in rules["groups"]:
            group["interval"] = "1s"
            for rule in group["rules"]:
                rule.pop("for", None)
        (directory / "rules.yml").write_text(yaml.safe_dump(rules))
        token = directory / "token"
        token.write_text(daemon.tokens["reader"])
        target = daemon.url.removeprefix("http://")
        jobs = [("recodex-monitor", "/metrics"), ("recodex-monitor-sites", "/metrics/probes")]
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": [
                {
                    "job_name": name,
                    "metrics_path": path,
                    "static_configs": [{"targets": [target]}],
                    "authorization": {"credentials_file": str(token)},
                }
                for name, path in jobs
            ],
        }
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.process = subprocess.Popen(
            [
                program,
                f"--config.file={directory}/prometheus.yml",
                f"--storage.tsdb.path={directory}/data",
                f"--web.listen-address={self.url.removeprefix('http://')}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def get(self, path: str, **parameters: str) -> Any:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]

    def values(self, expression: str) -> list[Any]:
        """Return the result of a query; none before Prometheus has started."""
        try:
            found: list[Any] = self.get("query", query=expression)["result"]
        except urllib.error.URLError:
            return []
        return found


@pytest.fixture(scope="module")
def prometheus(
    daemon: Whole, program: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    found = program("prometheus", package="prometheus")
    running = Prometheus(found, tmp_path_factory.mktemp("prometheus"), daemon)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def scraped(daemon: Whole, path: str, **headers: str) -> tuple[str, Any]:
    token = daemon.tokens["reader"]
    request = urllib.request.Request(
        daemon.url + path, headers={"Authorization": f"Bearer {token}", **headers}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        body = answer.read()
        if answer.headers["content-encoding"] == "gzip":
            body = gzip.decompress(body)
        return body.decode(), answer.headers


def test_each_site_has_the_series_of_blackbox_exporter(daemon: Whole) -> None:
    text, _ = scraped(daemon, "/metrics/probes")
    found = {
        (sample.name, sample.labels["job"], sample.labels.get("phase")): sample
        for family in plain(text)
        for sample in family.samples
    }
    assert found["probe_success", "1", None].value == 0
    assert found["probe_success", "2", None].value == 1
    assert found["probe_success", "2", None].labels == {
        "job": "2",
        "name": 'the "blog"',
        "kind": "http",
        "target": daemon.mock()["url"],
    }
    assert found["probe_http_status_code", "1", None].value == 0
    assert found["probe_http_status_code", "2", None].value == 200
    phases = {phase for name, job, phase in found if phase and job == "2"}
    assert phases == {"resolve", "connect", "tls", "processing", "transfer"}
    assert found["probe_duration_seconds", "2", None].value > 0
    # A result of a stopped site would only get older.
    assert not any(job == "3" for _, job, _ in found)


@pytest.mark.parametrize("path", ["/metrics", "/metrics/probes"])
def test_metrics_are_compressed_and_in_openmetrics_if_the_client_asks(
    daemon: Whole, path: str
) -> None:
    plainly, headers = scraped(daemon, path)
    assert headers["content-encoding"] is None
    compressed, headers = scraped(daemon, path, **{"Accept-Encoding": "gzip"})
    assert headers["content-encoding"] == "gzip"
    assert headers["vary"] == "accept-encoding"
    assert {family.name for family in plain(compressed)} == {f.name for f in plain(plainly)}
    _, headers = scraped(daemon, path, **{"Accept-Encoding": "gzip;q=0"})
    assert headers["content-encoding"] is None
    text, headers = scraped(daemon, path, Accept="application/openmetrics-text; version=1.0.0")
    assert headers["content-type"].startswith("application/openmetrics-text")
    assert list(open_metrics(text))  # type: ignore[no-untyped-call]


def test_the_rules_are_sound(program: Callable[..., str]) -> None:
    promtool = program("promtool", package="prometheus")
    done = subprocess.run(
        [promtool, "check", "rules", RULES], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_an_alert_fires_for_the_site_that_is_down_and_no_other(prometheus: Prometheus) -> None:
    def firing() -> set[str]:
        return {
            each["metric"]["name"] for each in prometheus.values('ALERTS{alertname="SiteDown"}')
        }

    wait_for(lambda: firing() == {"shop"}, "the alert", limit_s=120)
    names = {each["metric"]["alertname"] for each in prometheus.values("ALERTS")}
    assert "MonitorDown" not in names
    assert "MonitorPartFails" not in names


def test_every_metric_of_the_rules_and_dashboards_exists(prometheus: Prometheus) -> None:
    wait_for(lambda: prometheus.values("recodex_monitor_ready"), "a scrape", limit_s=120)
    wait_for(lambda: prometheus.values("probe_success"), "a scrape of the sites", limit_s=120)
    text = RULES.read_text() + "".join(file.read_text() for file in DASHBOARDS)
    known = set(prometheus.get("label/__name__/values"))
    # Of TLS, Kafka and clusters there is nothing here.
    known |= {
        "probe_ssl_earliest_cert_expiry",
        "recodex_monitor_consumer_expired_total",
        "recodex_monitor_model_updates_total",
    }
    used = set(re.findall(r"\b(?:recodex_monitor|probe|process)_[a-z_]+", text))
    assert used <= known


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_prometheus_runs_every_query_of_a_dashboard(prometheus: Prometheus, file: Path) -> None:
    wait_for(lambda: prometheus.values("probe_success"), "a scrape of the sites", limit_s=120)
    board = json.loads(file.read_text())
    assert board["schemaVersion"] >= 39
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    names = "|".join(each["name"] for each in board["templating"]["list"])
    for panel in board["panels"]:
        for target in panel["targets"]:
            expression = target["expr"].replace("$__range", "5m")
            expression = re.sub(rf"\$({names})\b", ".*", expression)
            prometheus.get("query", query=expression)


def test_the_dashboards_are_those_that_the_script_makes(tmp_path: Path) -> None:
    subprocess.run([ROOT / "packaging/make-dashboards", tmp_path], check=True, timeout=60)
    for file in DASHBOARDS:
        assert (tmp_path / file.name).read_text() == file.read_text()
