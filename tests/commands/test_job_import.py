"""Files of Prometheus, Gatus and Uptime Kuma become jobs, and what they lose is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jmespath
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


def endpoint(condition: str, **keys: Any) -> str:
    given = {"name": "x", "url": "https://a.example/", "conditions": [condition], **keys}
    return json.dumps({"endpoints": [given]})


@pytest.mark.parametrize(
    ("condition", "body", "true"),
    [
        ("[BODY].my-key == x", {"my-key": "x"}, True),
        ("[BODY].data[0].id == 1", {"data": [{"id": 1}]}, True),
        ("[BODY].data[0].id == 1", {"data": [{"id": "1"}]}, True),
        ("[BODY].age == [BODY].id", {"age": 3, "id": "3"}, True),
        ("[BODY].age == [BODY].id", {"age": 3, "id": 4}, False),
        ("[BODY].age >= 3", {"age": "3"}, True),
        ("3 > [BODY].age", {"age": 3}, False),
        ("[BODY].name == pat(john*)", {"name": "john.doe"}, True),
        ("[BODY].name != pat(*doe)", {"name": "john.doe"}, False),
        ("[BODY].id == any(1, x)", {"id": "x"}, True),
        ("len([BODY].data) < 2", {"data": [1, 2]}, False),
        ("[BODY].ok == true", {"ok": True}, True),
    ],
)
def test_conditions_about_json_mean_the_same(
    tmp_path: Path, condition: str, body: Any, true: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    _, (job,), lost = imported(tmp_path / "gatus.json", endpoint(condition), capsys)
    assert lost == []
    assert jmespath.search(job["json"], body) is true


@pytest.mark.parametrize(
    ("condition", "keys", "wanted"),
    [
        ("[STATUS] == pat(2*)", {}, {"expected_status": ["200-299"]}),
        ("[STATUS] != any(500, 503)", {}, {"expected_status": ["100-499", "501-502", "504-999"]}),
        ("[CERTIFICATE_EXPIRATION] > 0", {}, {}),
        ("[BODY] == OK", {}, {"body_regexp": r"(?s)\A\s*(?:OK)\s*\Z"}),
        ("[RESPONSE_TIME] < 500", {}, {"degraded_after": 0.5}),
        ("[STATUS] == [BODY].x", {}, {}),
        ("[BODY] == pong", {"url": "ws://a/", "body": "ping"}, {"dialogue": [{"send": "ping"}]}),
        ("[STATUS] == 0", {"url": "ssh://a", "ssh": {"username": ""}}, {"url": "tcp://a:22"}),
        ("[BODY] == m.", {"url": "192.0.2.1", "dns": {"query-name": "a", "query-type": "MX"}},
         {"expected": [r"^\d+ m\.$"]}),
        ("[CONNECTED] == true", {"url": "icmp://a", "client": {"network": "ip6"}},
         {"ip_version": "6"}),
        ("[CONNECTED] == true", {"url": "2001:db8::1", "dns": {"query-name": "a"}},
         {"url": "dns://[2001:db8::1]/a?type=A"}),
        ("[CONNECTED] == true", {"interval": "10", "client": {"timeout": "x"}}, {"kind": "http"}),
        ("[CERTIFICATE_EXPIRATION] > 48h", {"url": "tcp://a:1"}, {"kind": "tcp"}),
    ],
)  # fmt: skip
def test_what_an_endpoint_asks_for_is_a_key_of_its_job(
    tmp_path: Path, condition: str, keys: Any, wanted: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    _, (job,), _ = imported(tmp_path / "gatus.json", endpoint(condition, **keys), capsys)
    for key, value in wanted.items():
        found = job[key][: len(value)] if key == "dialogue" else job[key]
        assert found == value


def test_texts_that_look_like_values_are_texts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = """
external-endpoints: [{name: 010, enabled: off, heartbeat: {interval: 1m}}]
endpoints:
- {name: off, group: 1.10, enabled: no, url: "http://a/", method: POST, body: 0x10,
   headers: {X-On: on}, conditions: ["[STATUS] == 200"]}
"""
    _, (site, cron), _ = imported(tmp_path / "gatus.yaml", text, capsys)
    assert (site["name"], site["tags"], site["active"], site["body"], site["headers"]) == (
        "off", ["1.10"], False, "0x10", {"X-On": "on"}
    )  # fmt: skip
    assert (cron["name"], cron["active"]) == ("010", False)
    text = f"""
- {{targets: [10.0.0.1, "2001:db8::1"], labels: {{module: icmp, on: 1.10}}}}
- {{targets: ["h:1"], labels: {{module: grpc, long: {"x" * 200}}}, more: 1}}
"""
    _, jobs, lost = imported(tmp_path / "sd.yml", text, capsys)
    assert [job["url"] for job in jobs] == [
        "ping://10.0.0.1", "ping://[2001:db8::1]", "grpcs://h:1"
    ]  # fmt: skip
    assert jobs[0]["tags"] == ["on=1.10"]
    assert [line.partition("not taken: ")[2] for line in lost] == [
        "the key more",
        "tags[0]: expected a text of at most 100 characters (the job is without its tags)",
    ]


@pytest.mark.parametrize(
    ("monitor", "wanted", "lost"),
    [
        ({"type": "http", "url": "https://a/", "maxredirects": 0}, {"follow_redirects": False}, ""),
        ({"type": "http", "url": "https://a/", "basic_auth_user": "u@", "basic_auth_pass": "p:"},
         {"url": "https://u%40:p%3A@a/"}, ""),
        ({"type": "http", "url": "https://x:y@a?q=@", "basic_auth_user": "u"},
         {"url": "https://u:@a?q=@"}, ""),
        ({"type": "port", "hostname": " db.example ", "port": "5432"},
         {"url": "tcp://db.example:5432"}, ""),
        ({"type": "http", "url": "https://a/", "authMethod": "ntlm"}, {}, "authentication ntlm"),
        ({"type": "http", "url": "https://a/", "headers": "{"}, {}, "headers"),
        ({"type": "http", "url": "https://a/", "accepted_statuscodes": ["2xx"]},
         {"kind": "http"}, "(the job is without its expected_status)"),
        ({"type": "dns", "hostname": "192.0.2.9", "dns_resolve_server": "1.1.1.1, 2001:db8::1",
          "dns_resolve_type": "PTR"},
         {"url": "dns://1.1.1.1:53/9.2.0.192.in-addr.arpa?type=PTR", "expected": ["."]},
         "name servers but the first: 2001:db8::1"),
        ({"type": "smtp", "hostname": "m", "port": 587, "smtpSecurity": "starttls"},
         {"url": "tcp://m:587", "starttls": "smtp"}, ""),
        ({"type": "websocket-upgrade", "url": "wss://w/", "wsSubprotocol": "a, b"},
         {"headers": {"Sec-WebSocket-Protocol": "a,b"}}, ""),
        ({"type": "ping", "hostname": "h", "ping_count": 3, "ipFamily": "ipv6"},
         {"count": 3, "ip_version": "6"}, ""),
        ({"type": "push", "maxretries": 2, "interval": 60}, {"kind": "heartbeat"}, "retries"),
    ],
)  # fmt: skip
def test_a_monitor_of_uptime_kuma_of_either_version(
    tmp_path: Path, monitor: Any, wanted: Any, lost: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = json.dumps({"monitorList": [monitor]})
    _, (job,), lines = imported(tmp_path / "kuma.json", text, capsys)
    assert {key: job[key] for key in wanted} == wanted
    assert lost in "".join(lines)
    assert bool(lost) == bool(lines)


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ({"endpoints": [{"name": "a", "url": "http://a/", "conditions": "[STATUS] == 200"}]},
         "endpoint 1 (a): not taken: cannot be read: conditions must be a list"),
        ({"endpoints": [{"name": "a", "url": "http://a/", "client": 5}]},
         "endpoint 1 (a): not taken: cannot be read: one of its values is of another type"),
        ({"endpoints": [{"name": "a", "url": "8.8.8.8", "dns": "x"}]},
         "endpoint 1 (a): not taken: cannot be read: one of its values is of another type"),
        ({"monitorList": [{"name": "a", "type": "http", "url": "http://a/", "maxretries": "x"}]},
         "monitor 1 (a): not taken: cannot be read: maxretries must be a number"),
        ({"monitorList": [{"name": "a", "type": "http", "url": "http://a/", "interval": [1]}]},
         "monitor 1 (a): not taken: cannot be read: interval must be a number"),
        ([{"labels": {}}], "group 1: not taken: targets must be a list and labels an object"),
        (["x"], "group 1: not taken: is not an object"),
    ],
)  # fmt: skip
def test_an_entry_of_another_shape_costs_itself_only(
    tmp_path: Path, text: Any, lost: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if isinstance(text, list):
        text.append({"targets": ["http://b/"]})
    for key, good in (
        ("endpoints", {"name": "b", "url": "http://b/"}),
        ("monitorList", {"name": "b", "type": "http", "url": "http://b/"}),
    ):
        if key in text:
            text[key].append(good)
    _, (job,), (line,) = imported(tmp_path / "file.json", json.dumps(text), capsys)
    assert job["url"] == "http://b/"
    assert lost in line


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
        "endpoints: [{name: a, name: b, url: 'http://a/'}]",
    ],
)
def test_another_file_is_refused(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "other"
    file.write_text(text)
    assert main(["job", "import", str(file)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
