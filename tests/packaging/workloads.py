"""What packaging/kubernetes makes: its workloads, and what each gives its pods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from monitor.daemon.config import Config, load
from tests.packaging.kustomize import Object, pod_template, render

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"
KUBERNETES = PACKAGING / "kubernetes"
OPENSHIFT = PACKAGING / "openshift"
WORKLOADS = ("StatefulSet", "Deployment", "Job")
PORTS = {"http": 9000, "websocket": 4567, "zeromq": 7894}
SECRETS = Path("/run/secrets/recodex-monitor")


def of_kind(found: list[Object], *kinds: str) -> list[Object]:
    return [each for each in found if each["kind"] in kinds]


RENDERED = render(KUBERNETES)
ALL_WORKLOADS = of_kind(RENDERED, *WORKLOADS)
SERVING = of_kind(RENDERED, "StatefulSet", "Deployment")


def name_of(found: Any) -> str:
    return str(found["metadata"]["name"]) if isinstance(found, dict) else str(found)


def component(found: Object) -> str:
    return str(found["metadata"]["labels"]["app.kubernetes.io/component"])


def container_of(workload: Object) -> Object:
    (container,) = pod_template(workload)["spec"]["containers"]
    return dict(container)


def config_map(name: str, found: list[Object] = RENDERED) -> dict[str, str]:
    (data,) = [
        each["data"] for each in of_kind(found, "ConfigMap") if each["metadata"]["name"] == name
    ]
    return dict(data)


def config_file(workload: Object, found: list[Object] = RENDERED) -> str:
    """Return the daemon's config that a workload's pods are given."""
    volumes = {each["name"]: each for each in pod_template(workload)["spec"]["volumes"]}
    return config_map(volumes["config"]["configMap"]["name"], found)["config.yml"]


def loaded(workload: Object, secrets: Path, found: list[Object] = RENDERED) -> Config:
    """Return the config as the daemon in a workload's pods reads it."""
    file = secrets / "config.yml"
    file.write_text(config_file(workload, found))
    environ = {**environment(workload, found), "CREDENTIALS_DIRECTORY": str(secrets)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CREDENTIALS_DIRECTORY", str(secrets))
        return load(str(file), environ=environ).config


def environment(workload: Object, found: list[Object] = RENDERED) -> dict[str, str]:
    """Return the environment of a workload's first pod."""
    container = container_of(workload)
    variables: dict[str, str] = {}
    for source in container.get("envFrom", []):
        variables |= config_map(source["configMapRef"]["name"], found)
    for variable in container["env"]:
        if "value" in variable:
            variables[variable["name"]] = variable["value"]
        else:
            assert variable["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
            variables[variable["name"]] = f"{workload['metadata']['name']}-0"
    return variables
