"""packaging/kubernetes, as a real API server takes it and its controllers act on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cluster_real.servers import Api
from tests.packaging.kustomize import render
from tests.waiting import wait_for

pytestmark = [pytest.mark.integration_test, pytest.mark.timeout(300)]

_MANIFESTS = Path(__file__).parents[2] / "packaging" / "kubernetes"


def test_every_object_is_taken_and_the_namespaces_policy_lets_the_pods_in(api: Api) -> None:
    found = render(_MANIFESTS)
    names = {item["metadata"]["namespace"] for item in found if "namespace" in item["metadata"]}
    namespaces = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in names
    ]
    api.apply([*namespaces, *found])
    wanted = {
        (item["kind"], item["metadata"]["name"])
        for item in found
        if item["kind"] in {"Deployment", "StatefulSet", "Job"}
    }
    assert wanted
    wait_for(
        lambda: wanted <= workloads_with_pods(api),
        f"pods of all of {wanted}; refused: {refusals(api)}",
        limit_s=60,
    )
    assert refusals(api) == []


def workloads_with_pods(api: Api) -> set[tuple[str, str]]:
    """Return kind and name of the workloads of which the API has a pod."""
    pods = api.call("GET", "/api/v1/namespaces/monitoring/pods")["items"]
    owners = [owner for pod in pods for owner in pod["metadata"]["ownerReferences"]]
    found = {(owner["kind"], owner["name"]) for owner in owners}
    # A Deployment has its pods by a ReplicaSet whose name is its own and a hash.
    return found | {
        ("Deployment", name.rpartition("-")[0]) for kind, name in found if kind == "ReplicaSet"
    }


def refusals(api: Api, namespace: str = "monitoring") -> list[Any]:
    """Return what kept controllers from making a pod."""
    events = api.call("GET", f"/api/v1/namespaces/{namespace}/events")["items"]
    return [event["message"] for event in events if event["reason"] == "FailedCreate"]
