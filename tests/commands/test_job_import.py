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
    conditions: ["[BODY] == 192.0.2.1", "[DNS_RCODE] == NOERROR"]
  - {name: ping, url: "icmp://b.example", conditions: ["[CONNECTED] == true"]}
  - {name: shell, url: "ssh://c.example:22"}
"""
KUMA = {
    "version": "1.23",
    "monitorList": [
        {"id": 1, "name": "site", "type": "keyword", "url": "https://a.example/", "keyword": "a.b",
         "interval": 20, "maxretries": 2, "accepted_statuscodes": ["200-299"], "active": 1,
         "tags": [{"name": "web"}], "maxredirects": 10, "method": "GET", "timeout": 16},
        {"id": 2, "name": "mail", "type": "port", "hostname": "b.example", "port": 25},
        {"id": 3, "name": "cron", "type": "push", "interval": 60, "pushToken": "x"},
        {"id": 4, "name": "queue", "type": "rabbitmq"},
    ],
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
    ]  # fmt: skip
    assert jobs[0]["tags"] == ["team=x"]
    assert status == 1
    assert [line.partition("group ")[2] for line in lost] == [
        "4: e.example: not taken: its module own is not known"
    ]


def test_a_config_of_gatus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, jobs, lost = imported(tmp_path / "gatus.yaml", GATUS, capsys)
    site, server, ping = jobs
    assert (site["interval"], site["expected_status"], site["certificate_days"]) == (90, ["200"], 2)
    assert site["json"] == 'status == `"UP"`'
    assert server["url"] == "dns://192.0.2.53/example.org?type=A"
    assert server["expected"] == [r"^192\.0\.2\.1$"]
    assert ping["kind"] == "ping"
    assert "the condition [RESPONSE_TIME] < 300" in lost[0]
    assert "ssh:// has no kind of check" in lost[1]


def test_a_backup_of_uptime_kuma(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, jobs, lost = imported(tmp_path / "kuma.json", json.dumps(KUMA), capsys)
    assert [job["kind"] for job in jobs] == ["http", "tcp", "heartbeat"]
    assert (jobs[0]["body_regexp"], jobs[0]["retries"], jobs[0]["tags"]) == (r"a\.b", 2, ["web"])
    assert len(lost) == 2
    assert "its push token" in lost[0]
    assert "the type rabbitmq has no kind of check" in lost[1]


@pytest.mark.parametrize("text", ["[]x", "{}", "[1]", "jobs: [", '{"monitorList": 1}', "\0"])
def test_another_file_is_refused(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "other"
    file.write_text(text)
    assert main(["job", "import", str(file)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
