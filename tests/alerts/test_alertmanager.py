"""The real Alertmanager."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests

from monitor.alerts.receivers.alertmanager import Alertmanager
from tests.alerts.running import SITE, running
from tests.alerts.test_receivers import MESSAGE
from tests.ports import free_port
from tests.waiting import until, wait_for

pytestmark = pytest.mark.integration_test


@contextlib.contextmanager
def started(binary: str, folder: Path, port: int) -> Iterator[str]:
    folder.mkdir(exist_ok=True)
    config = folder / "alertmanager.yml"
    config.write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [
            binary,
            f"--config.file={config}",
            f"--storage.path={folder}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        ],
        stderr=subprocess.DEVNULL,
    )

    def is_ready() -> bool:
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"{url}/-/ready", timeout=5).ok
        return False

    try:
        wait_for(is_ready, "Alertmanager")
        yield url
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def binary(program: Callable[..., str]) -> str:
    return program("prometheus-alertmanager", "alertmanager", package="prometheus-alertmanager")


def alerts(url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = requests.get(f"{url}/api/v2/alerts", timeout=30).json()
    return found


async def test_an_incident_is_an_alert_until_it_is_resolved(tmp_path: Path, binary: str) -> None:
    with started(binary, tmp_path / "am", free_port()) as url:
        config = {
            "group_wait": 0,
            "page": "https://monitor.example.org/",
            "receivers": [{"name": "am", "alertmanager": url}],
            "rules": [{**SITE, "receivers": ["am"]}],
        }
        async with running(tmp_path, config) as now:
            await now.check((1, False), (1, False))
            await until(lambda: alerts(url))
            (incident,) = await now.incidents()
            (alert,) = alerts(url)
            assert alert["labels"] == {
                "alertname": "site down",
                "incident": incident.id,
                "watch": "site",
                "subject": "1",
            }
            assert alert["annotations"]["summary"] == "https://1.example.org/ is down"
            assert alert["generatorURL"].endswith(f"#/incidents/{incident.id}")
            await now.check((1, True))
            await until(lambda: not alerts(url))


async def test_an_outage_of_many_sites_is_an_alert_for_each(tmp_path: Path, binary: str) -> None:
    with started(binary, tmp_path / "am", free_port()) as url:
        config = {
            "group_wait": 1,
            "receivers": [{"name": "am", "alertmanager": url}],
            "rules": [{**SITE, "failures": 1, "receivers": ["am"]}],
        }
        async with running(tmp_path, config) as now:
            await now.check(*((job_id, False) for job_id in range(1, 251)))
            await until(lambda: len(alerts(url)) == 250)


async def test_one_that_forgot_its_alerts_gets_them_again(tmp_path: Path, binary: str) -> None:
    port = free_port()
    config = {
        "group_wait": 0,
        "receivers": [{"name": "am", "alertmanager": [f"http://127.0.0.1:{port}"]}],
        "rules": [{**SITE, "receivers": ["am"]}],
    }
    with started(binary, tmp_path / "one", port) as url:
        async with running(tmp_path, config) as now:
            await now.check((1, False), (1, False))
            await now.until(lambda found: found and found[0].notified and found[0].notified[0].at)
    with started(binary, tmp_path / "two", port) as url:
        assert alerts(url) == []
        async with running(tmp_path, config) as now:
            await until(lambda: now.part._notifier._senders)
            ((sender, _),) = now.part._notifier._senders.values()
            # As if a minute had passed.
            sender._refreshed_at -= 61
            sender.news.set()
            await until(lambda: alerts(url))


async def test_one_of_several_that_is_down_is_no_failure(tmp_path: Path, binary: str) -> None:
    with started(binary, tmp_path / "am", free_port()) as url:
        target = Alertmanager("am", [f"http://127.0.0.1:{free_port()}", url])
        assert (await target.send(MESSAGE)).accepted
        # An end before the start, after the clock was set back, is not refused.
        ended = msgspec.structs.replace(MESSAGE.incidents[0], resolved_at=1.0)
        assert (await target.send(replace(MESSAGE, incidents=[ended]))).accepted
    outcome = await target.send(MESSAGE)
    assert not outcome.accepted
    assert "onnect" in outcome.said
