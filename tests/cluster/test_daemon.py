"""The part in the daemon: its section, its status, its page of the API, its end."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.cluster.conftest import Lab, write_kubeconfig
from tests.cluster.plays import DeploymentPlay
from tests.ports import free_port
from tests.servers.daemon import StartDaemon
from tests.waiting import wait_for

pytestmark = pytest.mark.integration_test


def config(lab: Lab, directory: Path, **more: Any) -> dict[str, Any]:
    kubeconfig = write_kubeconfig(directory / "kubeconfig", lab.server, token="top-secret")
    return {
        "relay": False,
        "cluster": {"name": "prod", "kinds": ["Deployment", "Pod"], "kubeconfig": str(kubeconfig)},
        **more,
    }


def test_the_last_events_are_served(lab: Lab, start_daemon: StartDaemon, tmp_path: Path) -> None:
    play = DeploymentPlay()
    lab.play(play.create("models/churn:1"))
    port = free_port()
    daemon = start_daemon(config(lab, tmp_path, api={"uri": ["127.0.0.1", port]})).wait_ready()
    url = f"http://127.0.0.1:{port}/model-update"

    def items(**query: float | str) -> list[dict[str, Any]]:
        answer = requests.get(url, params=query, timeout=60)
        assert answer.status_code == 200
        return list(answer.json()["items"])

    wait_for(items, "the snapshot")
    lab.play(play.set_image("models/churn:2"))
    wait_for(lambda: len(items()) == 4, "the upgrade and two pods")
    (newest,) = [item for item in items() if item["type"].endswith("upgraded")]
    assert newest["data"]["version"] == "2"
    assert newest["source"] == "/clusters/prod/namespaces/models/deployments/churn"
    assert len(items(limit=1)) == 1
    assert items(since=newest["time"] + 3600) == []
    assert requests.get(url, params={"limit": 0}, timeout=60).status_code == 422
    assert newest in items(contains="CHURN:2")
    assert not any(item["data"]["cause"] == "snapshot" for item in items(contains="CHURN:2"))
    assert items(contains="churn%") == []
    assert len(items(key="models/churn")) == 4
    assert items(key="models/other") == []
    models = url.replace("/model-update", "/model")
    (model,) = requests.get(models, timeout=60).json()["items"]
    assert (model["kind"], model["name"], model["version"]) == ("Deployment", "churn", "2")
    assert (model["replicas_wanted"], model["replicas_ready"]) == (2, 2)
    assert model["since"] == model["last_rollout"]["at"] == newest["time"]
    assert model["last_rollout"]["outcome"] == "upgraded"
    assert model["last_rollout"]["duration"] >= 0
    assert model["last_rollout"]["duration"] == newest["data"]["duration"]
    for text, count in {"CHURN": 1, "models": 1, "prod": 1, "other": 0}.items():
        found = requests.get(models, params={"contains": text}, timeout=60).json()["items"]
        assert len(found) == count
    for key, count in {"models/churn": 1, "models/chur": 0, "churn": 0}.items():
        found = requests.get(models, params={"key": key}, timeout=60).json()["items"]
        assert len(found) == count
    # Last by its uid, first by its name.
    lab.play(DeploymentPlay("another", uid="zzz").create("models/another:1"))
    wait_for(lambda: len(requests.get(models, timeout=60).json()["items"]) == 2, "two models")
    page = requests.get(models, params={"limit": 1}, timeout=60).json()
    rest = requests.get(models, params={"limit": 1, "cursor": page["cursor"]}, timeout=60).json()
    assert [item["name"] for item in page["items"] + rest["items"]] == ["another", "churn"]
    assert rest["cursor"] is None
    wait_for(
        # Two Deployments and the pods of one.
        lambda: any(
            re.search(r"cluster: [3-9] objects of prod", status)
            for status in daemon.notices("STATUS")
        ),
        "the objects in STATUS=",
    )
    assert daemon.stop() == 0
    assert "top-secret" not in daemon.log + daemon.stderr


def test_a_cluster_that_is_away_does_not_stop_the_daemon(
    lab: Lab, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    lab.server.stop()
    daemon = start_daemon(config(lab, tmp_path)).wait_ready()
    wait_for(
        lambda: any(
            "cluster degraded" in status and "refused" in status
            for status in daemon.notices("STATUS")
        ),
        "degraded in STATUS=",
    )
    assert daemon.stop() == 0


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"kinds": ["Deployments"]}, "cluster.kinds[0]"),
        ({"namespace": ["a"]}, "cluster.namespace: unknown key; did you mean namespaces?"),
        (
            {"mapping": {"version": ["tag"]}},
            "cluster.mapping.version[0]: expected label:KEY, annotation:KEY, image-name",
        ),
        ({"kubeconfig": "/nowhere"}, "cluster.kubeconfig: cannot read /nowhere"),
    ],
)
def test_a_wrong_section_is_bad_config(
    start_daemon: StartDaemon, section: dict[str, Any], problem: str
) -> None:
    daemon = start_daemon({"cluster": section})
    assert daemon.wait() == 78
    assert problem in daemon.stderr
    assert daemon.stderr.count("\n") == 1
