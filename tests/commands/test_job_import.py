"""Files of Prometheus, Gatus and Uptime Kuma become jobs, and what they lose is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from monitor.commands.command_line import run
from monitor.main import main
from monitor.probes.checks import read_job

PROMETHEUS = [
    {"targets": ["https://a.example/", "b.example"], "labels": {"team": "x"}},
    {"targets": ["c.example:22"], "labels": {"__param_module": "ssh_banner"}},
    {"targets": ["d.example"], "labels": {"module": "icmp"}},
    {"targets": ["e.example"], "labels": {"module": "own"}},
    {
        "targets": ["f.example"],
        "labels": {"__scrape_interval__": "1m30s", "__metrics_path__": "/x"},
    },
    {"targets": "g.example"},
    {"targets": ["h.example"], "labels": ["x"]},
]
GATUS = """
endpoints:
  - name: site
    group: web
    url: https://a.example/health
    interval: 1m30s
    conditions: ["[STATUS] == 200", "[BODY].status == UP", "[CERTIFICATE_EXPIRATION] > 48h",
                 "[RESPONSE_TIME] < 300"]
  - name: name server
    url: 192.0.2.53
    dns: {query-name: example.org., query-type: A}
    conditions: ["[BODY] == 192.0.2.1", "[DNS_RCODE] == NOERROR",
                 "[BODY] == any(192.0.2.1, pat(198.51.*))"]
  - {name: ping, url: "icmp://b.example", conditions: ["[CONNECTED] == true"]}
  - {name: shell, url: "ssh://c.example:22"}
  - {name: elsewhere, url: "${URL}/health"}
  - name: api
    url: https://d.example/
    client: {timeout: 3s, proxy-url: "http://proxy.example:3128", oauth2: {scopes: [x]}}
    graphql: true
    body: "{ up }"
    headers: {X-Number: 5, Authorization: "Bearer ${TOKEN}"}
    conditions: ["[STATUS] >= 200", "[STATUS] != 204", "[STATUS] < 400", "[BODY] == pat(*up*)",
                 "[BODY] != pat(*error*)", "[BODY] == pat(*more*)", "len([BODY].items) > 2",
                 "has([BODY].fault) == false", "[BODY][0].name != any(a, b)",
                 "[STATUS] == any(200, 301)"]
external-endpoints:
  - {name: cron, token: x, heartbeat: {interval: 1h}}
  - {name: never late, token: x}
suites:
  - {name: steps}
alerting: {slack: {webhook-url: "https://a.example/x"}}
"""
KUMA = {
    "version": "1.23",
    "monitorList": [
        {"id": 1, "name": "site", "type": "keyword", "url": "https://a.example/", "keyword": "a.b",
         "interval": 20, "maxretries": 2, "accepted_statuscodes": ["200-299"], "active": 1,
         "tags": [{"name": "web"}, {"name": "env", "value": "test"}], "parent": 6,
         "maxredirects": 10, "method": "POST", "timeout": 16,
         "body": "<a/>", "httpBodyEncoding": "xml", "headers": '{"N": 5}'},
        {"id": 2, "name": "mail", "type": "port", "hostname": "b.example", "port": 25},
        {"id": 3, "name": "cron", "type": "push", "interval": 60, "pushToken": "x"},
        {"id": 4, "name": "queue", "type": "rabbitmq"},
        {"id": 5, "name": "six", "type": "ping", "hostname": "2001:db8::1", "maxretries": 20,
         "proxyId": 3},
        {"id": 6, "name": "shop", "type": "group"},
    ],
    "notificationList": [{"id": 1, "name": "chat"}],
}  # fmt: skip


def imported(
    file: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> tuple[int, list[dict[str, Any]], list[str]]:
    file.write_text(text)
    status = run(["job", "import", str(file)])
    shown = capsys.readouterr()
    jobs = json.loads(shown.out)
    assert [read_job(job).id for job in jobs] == list(range(1, len(jobs) + 1))
    return status, jobs, shown.err.splitlines()


def test_targets_of_prometheus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, jobs, lost = imported(tmp_path / "sd.json", json.dumps(PROMETHEUS), capsys)
    assert [job["url"] for job in jobs] == [
        "https://a.example/", "http://b.example", "tcp://c.example:22", "ping://d.example",
        "http://f.example",
    ]  # fmt: skip
    assert jobs[0]["tags"] == ["team=x"]
    assert status == 1
    assert [line.partition("group ")[2] for line in lost] == [
        "4: e.example: not taken: its module own is not known",
        "5: f.example: not taken: the label __metrics_path__",
        "6: not taken: targets must be a list and labels an object",
        "7: not taken: targets must be a list and labels an object",
    ]
    assert jobs[-1]["interval"] == 90


def test_a_config_of_gatus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, jobs, lost = imported(tmp_path / "gatus.yaml", GATUS, capsys)
    site, server, ping, api, cron = jobs
    assert (site["interval"], site["expected_status"], site["certificate_days"]) == (90, ["200"], 2)
    assert site["json"] == 'status == `"UP"`'
    assert server["url"] == "dns://192.0.2.53/example.org?type=A"
    assert server["expected"] == [r"^192\.0\.2\.1$", r"^(?:192\.0\.2\.1|198\.51\..*)$"]
    assert ping["kind"] == "ping"
    assert "the condition [RESPONSE_TIME] < 300" in lost[0]
    assert "ssh:// has no kind of check" in lost[1]
    assert "its URL, which begins with the variable ${URL}" in lost[2]
    assert json.loads(api["body"]) == {"query": "{ up }"}
    assert api["headers"] == {
        "X-Number": "5",
        "Authorization": "Bearer ${TOKEN}",
        "Content-Type": "application/json",
    }
    assert (api["expected_status"], api["proxy"]) == (["200", "301"], "http://proxy.example:3128")
    assert (api["body_regexp"], api["body_absent_regexp"]) == ("up", "error")
    assert api["json"] == "length(items) > `2` && fault == `null`"
    assert (cron["kind"], cron["interval"]) == ("heartbeat", 3600)
    assert [line.partition("not taken: ")[2] for line in lost[3:]] == [
        "the key client.oauth2",
        "the variable ${TOKEN}: it stays as it stands",
        "the condition [BODY] == pat(*more*)",
        "the condition [BODY][0].name != any(a, b)",
        "its token: make a key with POST /job/ID/key",
        "it has no heartbeat.interval: it is never late",
        "it has no kind of check",
        "only checks are",
    ]
    assert "section alerting" in lost[-1]


def test_a_backup_of_uptime_kuma(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, jobs, lost = imported(tmp_path / "kuma.json", json.dumps(KUMA), capsys)
    assert [job["kind"] for job in jobs] == ["http", "tcp", "heartbeat", "ping"]
    assert (jobs[3]["url"], jobs[3]["retries"]) == ("ping://[2001:db8::1]", 10)
    assert (jobs[0]["body_regexp"], jobs[0]["retries"]) == (r"a\.b", 2)
    assert jobs[0]["tags"] == ["web", "env=test", "shop"]
    assert jobs[0]["headers"] == {"N": "5", "Content-Type": "text/xml; charset=utf-8"}
    assert len(lost) == 6
    assert "its push token" in lost[0]
    assert "the type rabbitmq has no kind of check" in lost[1]
    assert "the key proxyId" in lost[2]
    assert "more than 10 retries" in lost[3]
    assert "a group: its name is a tag of its monitors" in lost[4]
    assert "section notificationList" in lost[5]


@pytest.mark.parametrize(
    "text",
    [
        "[]x",
        "{}",
        "[1]",
        "jobs: [",
        '{"monitorList": 1}',
        "\0",
        '[{"targets": ["a"], "targets": ["b"]}]',
    ],
)
def test_another_file_is_refused(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "other"
    file.write_text(text)
    assert main(["job", "import", str(file)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
