"""The image: built from Debian and the package, and run as Kubernetes runs it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from websockets.sync.client import connect

from monitor.tokens import Role, create_token
from tests.distro.built import Built
from tests.packaging.kustomize import pod_template
from tests.packaging.workloads import (
    ALL_WORKLOADS,
    component,
    config_file,
    container_of,
    environment,
)
from tests.relay.broker import Broker
from tests.servers.container import Container, Image, built_image, running, wait_until_it_serves
from tests.waiting import wait_for

pytestmark = [pytest.mark.distro, pytest.mark.timeout(600)]

(RELAY,) = [each for each in ALL_WORKLOADS if component(each) == "relay"]
LIMIT_S = 20


@pytest.fixture(scope="module")
def image(built: Built) -> Iterator[Image]:
    with built_image(built.tree, built.tree / "packaging/container/Containerfile") as found:
        yield found


class Volumes:
    """What a pod mounts, with the owner that fsGroup would give it."""

    def __init__(self, directory: Path, group: int) -> None:
        self.config = directory / "config"
        self.secrets = directory / "secrets"
        self.state = directory / "state"
        self.tmp = directory / "tmp"
        for each in (self.config, self.secrets, self.state, self.tmp):
            each.mkdir(mode=0o755)
        self.tokens = {
            role.value: create_token(self.secrets / "tokens.yml", role.value, role) for role in Role
        }
        (self.secrets / "database-password").write_text("secret\n")
        for file in self.secrets.iterdir():
            file.chmod(0o440)
            os.chown(file, 0, group)
        for each in (self.state, self.tmp):
            os.chown(each, 0, group)
            each.chmod(0o2775)

    def mounts(self) -> dict[str, tuple[Path, bool]]:
        return {
            "/etc/recodex/monitor": (self.config, True),
            "/run/secrets/recodex-monitor": (self.secrets, True),
            "/var/lib/recodex-monitor": (self.state, False),
            "/tmp": (self.tmp, False),
        }


# None is the image's own user; another is what OpenShift assigns to a project.
ASSIGNED = 1000690000


@pytest.fixture
def user() -> int | None:
    return None


@pytest.fixture
def volumes(image: Image, tmp_path: Path, user: int | None) -> Volumes:
    return Volumes(tmp_path, int(image.config["User"].partition(":")[2]) if user is None else 0)


@pytest.fixture
def pod(image: Image, volumes: Volumes, tmp_path: Path, user: int | None) -> Callable[..., Any]:
    """Return a context that runs a pod of the relay's workload with any config."""

    def run(config: str) -> Any:
        (volumes.config / "config.yml").write_text(config)
        return running(
            image,
            *container_of(RELAY)["args"],
            volumes=volumes.mounts(),
            environ=environment(RELAY),
            directory=tmp_path,
            user=user,
        )

    return run


def stopped(container: Container) -> None:
    grace_s = pod_template(RELAY)["spec"]["terminationGracePeriodSeconds"]
    assert container.stop(grace_s) == 0, container.said
    assert "[INFO] stopped" in container.said
    assert "Traceback" not in container.said


def test_it_says_what_it_is_and_has_no_secrets(image: Image) -> None:
    config = image.config
    number, _, group = config["User"].partition(":")
    # By its number Kubernetes knows that it is not root.
    assert int(number) >= 1000
    assert group == number
    assert config["ExposedPorts"].keys() == {"4567/tcp", "7894/tcp", "9000/tcp"}
    assert config["StopSignal"] == "SIGTERM"
    assert config["Volumes"].keys() == {"/var/lib/recodex-monitor"}
    assert [variable.partition("=")[0] for variable in config["Env"]] == ["PATH"]
    labels = {key.rpartition(".")[2] for key in config["Labels"] if key.startswith("org.open")}
    assert {"title", "description", "licenses"} <= labels
    (fs_group,) = {
        pod_template(each)["spec"]["securityContext"]["fsGroup"] for each in ALL_WORKLOADS
    }
    assert fs_group == int(group)


@pytest.mark.parametrize("user", [None, ASSIGNED])
def test_the_relay_serves_from_a_read_only_root_as_nobody_in_particular(
    pod: Callable[..., Any], volumes: Volumes
) -> None:
    with pod(config_file(RELAY)) as container:
        wait_until_it_serves(container, "/readyz")
        url = f"http://{container.address}:9000/metrics"
        assert requests.get(url, timeout=LIMIT_S).status_code == 401
        header = {"authorization": f"Bearer {volumes.tokens['reader']}"}
        assert requests.get(url, headers=header, timeout=LIMIT_S).status_code == 200
        with connect(f"ws://{container.address}:4567/ws/") as client:
            client.send("student_1")
            broker = Broker(f"tcp://{container.address}:7894")
            broker.send("student_1", "FINISHED")
            assert client.recv(timeout=LIMIT_S) == '{"command": "FINISHED"}'
            broker.close()
        stopped(container)
    assert {file.name for file in volumes.state.iterdir()} >= {"history.db"}
    assert not any(token in container.said for token in volumes.tokens.values())


def test_the_image_has_what_every_part_needs(pod: Callable[..., Any], volumes: Volumes) -> None:
    kubeconfig = {
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (volumes.config / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    site = {"id": 1, "url": "http://127.0.0.1:9000/healthz", "interval": 0.5}
    config = yaml.safe_load(config_file(RELAY)) | {
        "kafka": {"bootstrap_servers": ["127.0.0.1:9"]},
        "database": {"url": "postgresql://monitor@127.0.0.1:9/monitoring"},
        "probes": {"jobs": [site]},
        "aggregation": {},
        "cluster": {"kubeconfig": "/etc/recodex/monitor/kubeconfig"},
        "logs": {"zeromq_uri": ["127.0.0.1", 7895]},
    }
    with pod(yaml.safe_dump(config)) as container:
        wait_until_it_serves(container, "/healthz")
        url = f"http://{container.address}:9000"
        parts = requests.get(f"{url}/healthz", timeout=LIMIT_S).json()["parts"]
        assert {"relay", "probes", "aggregation", "cluster", "logs", "web", "bus"} == parts.keys()
        assert requests.get(f"{url}/readyz", timeout=LIMIT_S).status_code == 503
        header = {"authorization": f"Bearer {volumes.tokens['reader']}"}

        def checked() -> bool:
            metrics = requests.get(f"{url}/metrics", headers=header, timeout=LIMIT_S).text
            found = re.search(
                r'^recodex_monitor_probe_results_total\{up="true"\} (\S+)', metrics, re.M
            )
            return found is not None and float(found[1]) > 0

        wait_for(checked, "a check")
        stopped(container)
