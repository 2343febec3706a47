"""The pods of packaging/kubernetes as processes of one machine, with real PostgreSQL and Kafka.

Each runs the command, the environment and the config of its manifest. Only what describes the
machine is different: addresses, the directories of volumes and secrets, and, to be quick, how many
sites a producer has and how long the aggregation waits.
"""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from websockets.sync.client import connect

from monitor.tokens import Role, create_token
from tests.cluster.conftest import Lab, write_kubeconfig
from tests.cluster.plays import DeploymentPlay
from tests.packaging.kustomize import Object, pod_template
from tests.packaging.workloads import (
    ALL_WORKLOADS,
    component,
    config_file,
    container_of,
    environment,
)
from tests.ports import free_port
from tests.probes.misbehaving import Misbehaving
from tests.servers.daemon import DaemonProcess, run_program
from tests.servers.kafka import Kafka
from tests.servers.kubernetes import KubernetesServer
from tests.servers.postgres import PostgresServer
from tests.waiting import LIMIT_S, wait_for

pytestmark = pytest.mark.end_to_end

START_S = 60.0
WORKLOADS = {component(each): each for each in ALL_WORKLOADS}


class Node:
    """Where pods run: their secrets, and what they find at the addresses of settings.env."""

    def __init__(self, folder: Path, database: str, kafka: str, kubeconfig: Path) -> None:
        self.folder = folder
        self.kubeconfig = kubeconfig
        self.topic = f"results-{uuid.uuid4().hex[:8]}"
        self.secrets = folder / "secrets"
        self.secrets.mkdir()
        (self.secrets / "database-password").write_text("secret\n")
        file = self.secrets / "tokens.yml"
        self.tokens = {role.value: create_token(file, role.value, role) for role in Role}
        self.settings = {
            "DATABASE_URL": database,
            "KAFKA_SERVER": kafka,
            "KAFKA_REPLICATION": "1",
            "CREDENTIALS_DIRECTORY": str(self.secrets),
        }

    def environment(self, workload: Object, ordinal: int) -> dict[str, str]:
        found = environment(workload) | self.settings
        if "POD_NAME" in found:
            found["POD_NAME"] = f"{workload['metadata']['name']}-{ordinal}"
        return found

    def config(self, workload: Object, port: int) -> str:
        config = yaml.safe_load(config_file(workload))
        config["api"]["uri"] = ["127.0.0.1", port]
        if "probes" in config:
            config["probes"] |= {"websites_per_container": 2, "topic": self.topic}
        if "aggregation" in config:
            config["aggregation"] |= {"flush_interval": 0.5, "topic": self.topic}
        if "cluster" in config:
            config["cluster"] |= {"kubeconfig": str(self.kubeconfig), "topic": f"{self.topic}-m"}
        if config["relay"]:
            config["websocket_uri"] = ["127.0.0.1", free_port()]
            config["zeromq_uri"] = ["127.0.0.1", free_port()]
        return yaml.safe_dump(config)


class Pod:
    """One pod of a workload."""

    def __init__(self, node: Node, kind: str, ordinal: int = 0) -> None:
        workload = WORKLOADS[kind]
        self.node = node
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        directory = node.folder / f"{kind}-{ordinal}"
        directory.mkdir()
        self.arguments = tuple(
            argument.replace("/etc/recodex/monitor", str(directory))
            for argument in container_of(workload)["args"]
        )
        self.environment = node.environment(workload, ordinal)
        self.daemon = DaemonProcess(
            directory,
            node.config(workload, self.port),
            arguments=self.arguments,
            environ=self.environment,
            debug=False,
        )
        self.grace_s = pod_template(workload)["spec"]["terminationGracePeriodSeconds"]

    def ask(
        self, path: str, *, method: str = "GET", role: str | None = "admin", **more: Any
    ) -> Any:
        headers = {} if role is None else {"authorization": f"Bearer {self.node.tokens[role]}"}
        return requests.request(method, self.url + path, headers=headers, timeout=LIMIT_S, **more)

    def answers(self, path: str) -> bool:
        """Return whether a probe of the kubelet would be content."""
        assert self.daemon.process.poll() is None, self.daemon.stderr
        try:
            return bool(self.ask(path, role=None).status_code == 200)
        except requests.ConnectionError:
            return False

    def says(self, text: str) -> bool:
        return text in self.daemon.stderr

    def end(self) -> None:
        assert self.daemon.stop() == 0
        assert "Traceback" not in self.daemon.stderr
        assert not any(token in self.daemon.stderr for token in self.node.tokens.values())


def run(pod: Pod, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a pod, as `kubectl exec` would."""
    done = run_program(*arguments, env={**pod.environment, "PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done.stderr
    return done


class Deployed:
    """All that the kustomization runs."""

    def __init__(self, node: Node, stack: ExitStack) -> None:
        def pod(kind: str, ordinal: int = 0) -> Pod:
            started = Pod(node, kind, ordinal)
            stack.callback(started.daemon.release)
            return started

        # All at once, as they come in a cluster; the tables are made meanwhile.
        self.producers = [pod("producer", ordinal) for ordinal in (0, 1)]
        self.consumer, self.logs, self.web = pod("consumer"), pod("logs"), pod("web")
        self.cluster, self.relay = pod("cluster"), pod("relay")
        self.all = [
            *self.producers, self.consumer, self.logs, self.web, self.cluster, self.relay,
        ]  # fmt: skip
        *command, _ = container_of(WORKLOADS["database"])["args"]
        run(self.web, *command, str(self.web.daemon.config_file))
        for path in ("/healthz", "/readyz"):
            for each in self.all:
                wait_for(partial(each.answers, path), f"{each.url}{path}", limit_s=START_S)


@pytest.fixture(scope="module")
def site() -> Iterator[Misbehaving]:
    server = Misbehaving()
    yield server
    server.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    server = KubernetesServer()
    yield Lab(server, tmp_path_factory.mktemp("lab"))
    server.stop()


@pytest.fixture(scope="module")
def deployed(
    postgres_server: PostgresServer,
    kafka: Kafka,
    lab: Lab,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("node")
    kubeconfig = write_kubeconfig(folder / "kubeconfig", lab.server, token="top-secret")
    database = postgres_server.url(postgres_server.create_database())
    with ExitStack() as stack:
        running = Deployed(Node(folder, database, kafka.bootstrap, kubeconfig), stack)
        yield running
        for pod in running.all:
            pod.end()


@pytest.fixture(scope="module")
def producers(deployed: Deployed, site: Misbehaving) -> Callable[[], dict[int, int]]:
    """Make four sites by the web pod's API; return what tells who checked each one last."""
    for job_id in (1, 2, 3, 4):
        job = {"id": job_id, "url": site.url("/ok"), "interval": 0.5}
        made = deployed.web.ask("/job", method="POST", json=job)
        assert made.status_code == 201, made.text

    def last() -> dict[int, int]:
        items = deployed.web.ask("/job").json()["items"]
        return {job["id"]: job["last"]["producer"] for job in items if job["last"]}

    return last


def test_every_pod_is_alive_and_ready_and_tells_nobody_else_anything(deployed: Deployed) -> None:
    for pod in deployed.all:
        parts = pod.ask("/healthz", role=None).json()["parts"]
        assert all(part["health"] != "degraded" for part in parts.values()), parts
        assert pod.ask("/metrics", role=None).status_code == 401
        assert pod.ask("/metrics", role="reader").status_code == 200


def test_results_of_both_producers_arrive_in_the_web_pod(
    deployed: Deployed, producers: Callable[[], dict[int, int]]
) -> None:
    wait_for(lambda: len(producers()) == 4, "a result of each site", limit_s=START_S)
    assert producers() == {1: 1, 2: 1, 3: 2, 4: 2}
    first = deployed.producers[0]
    command = ("producers-needed", "-c", str(first.daemon.config_file))
    assert run(first, *command).stdout == "2\n"
    for job_id in (1, 4):
        assert deployed.web.ask(f"/job/{job_id}").json()["state"] == "up"
        assert deployed.web.ask(f"/job/{job_id}/result").json()["items"]
        assert deployed.web.ask(f"/job/{job_id}/metric").json()["items"]


def test_a_stop_at_the_web_pod_reaches_the_producer_and_moves_no_site(
    deployed: Deployed, producers: Callable[[], dict[int, int]]
) -> None:
    wait_for(lambda: len(producers()) == 4, "a result of each site", limit_s=START_S)
    assert deployed.web.ask("/job/1/stop", method="POST", role="reader").status_code == 403
    assert deployed.web.ask("/job/1/stop", method="POST").status_code == 200
    first, second = deployed.producers
    wait_for(lambda: first.says("checking 1 of 4 jobs as producer 1"), "the stop")

    def newest() -> float:
        entry = deployed.web.ask("/job/2").json()
        return float(entry["last"]["scheduled_at"])

    stopped = newest()
    wait_for(lambda: newest() > stopped + 1, "further results")
    assert deployed.web.ask("/job/1").json()["state"] == "stopped"
    assert producers() == {1: 1, 2: 1, 3: 2, 4: 2}
    assert not second.says("checking 1 of 4")
    assert deployed.web.ask("/job/1/start", method="POST").status_code == 200


def test_logs_taken_by_one_pod_are_shown_by_the_other(deployed: Deployed) -> None:
    sent_at = time.time() - 1800  # half of LOGS_TIMEWINDOW in settings.env
    upload = {"action": "uploadLogs", "level": "info", "time": sent_at, "message": "hello"}
    header = {"authorization": f"Bearer {deployed.logs.node.tokens['sender']}"}
    address = deployed.logs.url.replace("http", "ws") + "/ws"
    with connect(address, additional_headers=header) as client:
        client.send(json.dumps(upload))
        assert json.loads(client.recv(timeout=LIMIT_S))["status"] == "ok"
    (entry,) = deployed.web.ask("/log", role="reader").json()["logs"]
    assert (entry["message"], entry["sender"]) == ("hello", "sender")


def test_models_that_the_watcher_sees_are_shown_by_the_web_pod(
    deployed: Deployed, lab: Lab
) -> None:
    lab.play(DeploymentPlay().create("models/churn:1"))
    wait_for(lambda: deployed.web.ask("/model-update").json()["items"], "a model event")
