"""Alerts in a daemon: its API, its live feed, its commands, its metrics and its log."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from websockets.asyncio.client import connect

from monitor.tokens import Role, create_token
from tests.alerts.receiver import HttpReceiver, Request, response
from tests.ports import free_port
from tests.servers.daemon import DaemonProcess, StartDaemon, run_program

pytestmark = pytest.mark.end_to_end


class Client:
    """The API with an admin's token."""

    def __init__(self, port: int, token: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.token = token

    async def __call__(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        def ask() -> tuple[int, Any]:
            headers = {"Authorization": f"Bearer {self.token}"}
            answer = requests.request(
                method, self.url + path, headers=headers, timeout=60, **options
            )
            return answer.status_code, answer.json() if answer.content else None

        return await asyncio.to_thread(ask)

    async def metrics(self) -> str:
        headers = {"Authorization": f"Bearer {self.token}"}
        url = f"{self.url}/metrics"
        answer = await asyncio.to_thread(lambda: requests.get(url, headers=headers, timeout=60))
        return answer.text

    async def until(self, path: str, condition: Any) -> Any:
        async with asyncio.timeout(60):
            while True:
                _, found = await self("GET", path)
                if condition(found):
                    return found
                await asyncio.sleep(0.1)

    async def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "RECODEX_MONITOR_TOKEN": self.token}
        return await asyncio.to_thread(run_program, *arguments, "--api", self.url, env=environ)


async def test_from_a_site_that_goes_down_to_one_who_acknowledges_it(
    tmp_path: Path, start_daemon: StartDaemon
) -> None:
    def answer(request: Request) -> bytes:
        return response(418 if request.json["event"] == "test" else 200, body="a teapot")

    token = create_token(tmp_path / "tokens.yml", "alice", Role.ADMIN)
    port, site = free_port(), free_port()
    job = {"id": 7, "name": "shop", "kind": "tcp", "url": f"tcp://127.0.0.1:{site}"}
    async with HttpReceiver(answer) as receiver:
        config = {
            "relay": False,
            "probes": {"jobs": [{**job, "interval": 0.2, "timeout": 5, "tags": ["production"]}]},
            "alerts": {
                "group_wait": 0,
                "page": "https://monitor.example.org/",
                "receivers": [{"name": "hook", "webhook": receiver.url}],
                "rules": [
                    {
                        "name": "site down",
                        "watch": "site",
                        "match": {"tags": ["production"]},
                        "receivers": ["hook"],
                    }
                ],
            },
            "api": {"uri": ["127.0.0.1", port], "tokens_file": str(tmp_path / "tokens.yml")},
        }
        daemon: DaemonProcess = await asyncio.to_thread(lambda: start_daemon(config).wait_ready())
        client = Client(port, token)
        async with connect(
            f"ws://127.0.0.1:{port}/live",
            additional_headers={"Authorization": f"Bearer {token}"},
        ) as page:
            (message,) = await receiver.until(1)
            incident = message.json["incident"]
            assert (incident["title"], incident["job"]) == ("shop is down", 7)
            async with asyncio.timeout(60):
                while True:
                    told = json.loads(await page.recv())
                    if told["type"] == "incidents" and told["items"]:
                        break
            assert told["items"][0]["id"] == incident["id"]
            assert told["open"] == 1
        log = await asyncio.to_thread(daemon.wait_log, "job 7 (shop) is down: refused")
        assert "[WARNING]" in log
        await asyncio.to_thread(daemon.wait_log, f"incident {incident['id']} opened by rule")
        await asyncio.to_thread(daemon.wait_log, "receiver hook: opened, 1 incident: accepted")

        # The API
        for query in ("", "?state=open", "?rule=site%20down", "?job=7", "?limit=1"):
            status, found = await client("GET", f"/incident{query}")
            assert status == 200
            assert [each["id"] for each in found["items"]] == [incident["id"]], query
        for query in ("?state=resolved", "?job=8", "?rule=other", "?state=acknowledged"):
            assert (await client("GET", f"/incident{query}"))[1]["items"] == []
        status, found = await client("GET", f"/incident/{incident['id']}")
        assert found["notified"][0]["receiver"] == "hook"
        for path in ("/incident/nosuch", "/incident/%00"):
            assert (await client("GET", path))[0] == 404
        assert (await client("POST", "/incident/nosuch/acknowledge"))[0] == 404
        assert (await client("GET", "/incident?state=odd"))[0] == 422
        assert (await client("GET", "/incident?stat=open"))[0] == 422

        # The commands
        done = await client.run("alerts", "list", "--state", "open")
        assert done.stdout.splitlines()[1].split("\t")[4:] == [
            "shop is down",
            "refused: Connection refused (2 failed checks in a row)",
        ], done.stderr
        done = await client.run("alerts", "acknowledge", incident["id"])
        assert done.stdout == f"incident {incident['id']} (shop is down) is acknowledged by alice\n"
        assert (await client.run("alerts", "acknowledge", "nosuch")).returncode == 1
        done = await client.run("alerts", "test", "hook")
        assert (done.returncode, done.stdout) == (1, "hook: not accepted: 418 a teapot\n")
        assert (await client.run("alerts", "test", "nobody")).returncode == 1
        done = await client.run("alerts", "silence", "--tag", "production", "--comment", "a disk")
        silence = done.stdout.split()[1]
        found = await client.until(
            f"/incident/{incident['id']}", lambda found: found["suppressed_by"]
        )
        assert found["suppressed_by"] == f"silence {silence}"
        (listed,) = (await client("GET", "/silence"))[1]["items"]
        assert (listed["created_by"], listed["comment"]) == ("alice", "a disk")
        done = await client.run("alerts", "silence", "--end", silence)
        assert done.returncode == 0, done.stderr
        assert (await client("DELETE", f"/silence/{silence}"))[0] == 404
        # Planned maintenance begins later, and ends at a time or after one.
        begin = datetime.fromtimestamp(time.time() // 1 + 7200).astimezone()
        for end in (["--for", "600"], ["--until", f"{begin.timestamp() + 600:.0f}"]):
            planned = ["alerts", "silence", "--job", "7", "--from", begin.isoformat(), *end]
            done = await client.run(*planned)
            silence = done.stdout.split()[1]
            said = f"silence {silence} begins at {begin.isoformat(' ')} and lasts for 10 min\n"
            assert (done.stdout, done.stderr) == (said, "")
            (listed,) = (await client("GET", "/silence"))[1]["items"]
            assert listed["until"] - listed["starts_at"] == 600
            assert (await client.run("alerts", "silence", "--end", silence)).returncode == 0
        done = await client.run("alerts", "silence", "--job", "77")
        assert (done.returncode, "no job 77" in done.stderr) == (0, True)
        assert (await client.run("alerts", "silence", "--end", done.stdout.split()[1])).stdout
        assert (await client.run(*planned, "--for", "600")).returncode == 2
        assert (await client.run("alerts", "list", "something")).returncode == 2
        assert (await client.run("alerts", "test")).returncode == 2
        assert (await client.run("alerts", "silence")).returncode == 2
        for body in (
            {},
            {"for": 1, "until": time.time() + 9},
            {"for": -1},
            {"until": 1},
            {"for": 60, "match": {"tag": "x"}},
            {"for": 60, "comment": "\0"},
        ):
            assert (await client("POST", "/silence", json=body))[0] == 422, body
        done = await client.run("status")
        assert "1 open incident:" in done.stdout, done.stdout + done.stderr

        # It comes up.
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", site)
        async with server:
            await client.until(
                f"/incident/{incident['id']}", lambda found: found["resolved_at"] is not None
            )
            await receiver.until(2)
            assert receiver.accepted[1].json["event"] == "resolved"
            assert receiver.accepted[1].json["incident"]["acknowledged_by"] == "alice"
            await asyncio.to_thread(daemon.wait_log, "job 7 (shop) is up again after")
        assert (await client("POST", f"/incident/{incident['id']}/acknowledge"))[0] == 200
        async with asyncio.timeout(60):
            while True:
                metrics = await client.metrics()
                counts = {
                    line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
                    for line in metrics.splitlines()
                    if line.startswith("recodex_monitor_alert_") and "accepted" in line
                }
                if list(counts.values()) == [2]:
                    break
                await asyncio.sleep(0.1)
        assert "recodex_monitor_alert_delivery_seconds_count 1.0" in metrics
        assert daemon.stop() == 0


@pytest.mark.parametrize(
    ("alerts", "problem"),
    [
        ({"receivers": [{"name": "x"}]}, "receivers[0]: needs one of urls_file, webhook and"),
        ({"receivers": [{"name": "x", "webhook": "ftp://x"}]}, "receivers[0].webhook: is not a"),
        (
            {"receivers": [{"name": "x", "urls_file": "/nowhere/x.urls"}]},
            "receivers[0].urls_file: cannot read /nowhere/x.urls",
        ),
        (
            {"rules": [{"name": "x", "watch": "site", "receivers": ["y"]}]},
            "rules[0].receivers[0]: no receiver 'y'; there are none",
        ),
        ({"rules": [{"name": "x", "watch": "sites"}]}, "did you mean site?"),
        ({"rules": [{"name": "x", "watch": "site", "days": 3}]}, "known by certificate"),
        ({"rules": [{"name": "x", "watch": "part"}] * 2}, "duplicate name 'x'"),
    ],
)
def test_a_wrong_config_is_one_line_with_its_key(
    tmp_path: Path, alerts: dict[str, Any], problem: str
) -> None:
    file = tmp_path / "config.yml"
    file.write_text(json.dumps({"alerts": alerts}))
    done = run_program("check-config", "-c", str(file))
    assert done.returncode == 78
    assert problem in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_check_config_shows_no_secret_and_names_a_url_that_apprise_does_not_understand(
    tmp_path: Path,
) -> None:
    file, urls = tmp_path / "config.yml", tmp_path / "oncall.urls"
    urls.write_text("# on call\njson://127.0.0.1:9\nnosuch://sesame\n")
    receivers = [
        {"name": "hook", "webhook": "https://hooks.example.org/sesame"},
        {"name": "am", "alertmanager": ["http://me:sesame@127.0.0.1:9093"]},
    ]

    def check(*more: dict[str, str]) -> subprocess.CompletedProcess[str]:
        file.write_text(json.dumps({"alerts": {"receivers": [*receivers, *more]}}))
        return run_program("check-config", "-c", str(file))

    done = check()
    assert done.returncode == 0, done.stderr
    assert "sesame" not in done.stdout
    done = check({"name": "oncall", "urls_file": str(urls)})
    assert done.returncode == 78
    assert f"{urls}: URL 2 is a nosuch URL that Apprise does not understand" in done.stderr
    assert "sesame" not in done.stderr
