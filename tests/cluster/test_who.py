"""Who changed a service and why, as its object says it, and the link to its page."""

from __future__ import annotations

from typing import Any

import pytest

from monitor.cluster.events import link_problem
from tests.cluster.memory import MemoryCluster
from tests.cluster.play import LABELS, Object, Write
from tests.cluster.plays import DeploymentPlay

V1, V2 = "models/churn:1", "models/churn:2"
TEMPLATE: Object = {"f:spec": {"f:template": {"f:spec": {}}}}
REPLICAS: Object = {"f:spec": {"f:replicas": {}}}
STATUS: Object = {"f:status": {"f:replicas": {}}}
ANNOTATIONS: Object = {"f:metadata": {"f:annotations": {}}}


def entry(manager: str, minute: int, fields: Object, **more: Any) -> Object:
    at = f"2021-02-09T08:{minute:02}:00Z"
    return {"manager": manager, "operation": "Update", "time": at, "fieldsV1": fields, **more}


def upgraded_with(*managed: Object, **settings: Any) -> MemoryCluster:
    """Upgrade a service whose object then has these managedFields."""
    cluster = MemoryCluster(**settings)
    cluster.start()
    play = DeploymentPlay()
    cluster.play(play.create(V1))
    play.item["metadata"]["managedFields"] = list(managed)
    play.item["metadata"].setdefault("annotations", {})["kubernetes.io/change-cause"] = "CHG-17"
    cluster.play(play.set_image(V2))
    return cluster


@pytest.mark.parametrize(
    ("managed", "expected"),
    [
        ([entry("helm", 1, TEMPLATE)], "helm"),
        ([entry("helm", 1, TEMPLATE), entry("kubectl-edit", 2, TEMPLATE)], "kubectl-edit"),
        ([entry("kubectl-edit", 2, TEMPLATE), entry("helm", 1, TEMPLATE)], "kubectl-edit"),
        # Who only scaled it, or annotated it, did not roll it out.
        ([entry("helm", 1, TEMPLATE), entry("keda", 2, REPLICAS)], "helm"),
        ([entry("helm", 1, TEMPLATE), entry("kubectl-annotate", 2, ANNOTATIONS)], "helm"),
        # Nor did the controllers.
        (
            [
                entry("helm", 1, TEMPLATE),
                entry("kube-controller-manager", 3, STATUS, subresource="status"),
                entry("kube-controller-manager", 4, TEMPLATE),
            ],
            "helm",
        ),
        ([entry("kube-controller-manager", 1, TEMPLATE)], None),
        ([entry("", 1, TEMPLATE)], None),
        ([{"manager": "helm", "fieldsV1": TEMPLATE}], "helm"),
        ([], None),
    ],
)
def test_the_event_names_who_changed_the_template(
    managed: list[Object], expected: str | None
) -> None:
    cluster = upgraded_with(*managed)
    event = cluster.events[-1].data
    assert event.changed_by == expected
    assert event.change_cause == "CHG-17"
    assert cluster.events[0].data.change_cause is None


def test_the_link_has_the_object_in_parts_of_a_url() -> None:
    cluster = MemoryCluster()
    cluster.link = "https://console.example.org/{cluster}/{namespace}/{plural}/{name}?v={version}"
    cluster.start()
    cluster.play(DeploymentPlay("a b").create("models/churn:1.0"))
    (event,) = cluster.events
    assert event.data.link == "https://console.example.org/test/models/deployments/a%20b?v=1.0"


def test_the_link_has_the_plural_of_the_api_not_a_guess() -> None:
    cluster = MemoryCluster("KnativeService")
    cluster.link = "https://console.example.org/k8s/ns/{namespace}/{plural}/{name}"
    cluster.start()
    name = "churn-00001"
    item = {
        "metadata": {
            **{"name": "churn", "namespace": "models", "uid": "k", "generation": 1},
            "labels": LABELS,
        },
        "spec": {"template": {"spec": {"containers": [{"name": "user", "image": V1}]}}},
        "status": {
            "observedGeneration": 1,
            "conditions": [{"type": "Ready", "status": "True"}],
            **{"latestCreatedRevisionName": name, "latestReadyRevisionName": name},
        },
    }
    cluster.step([Write("services", "models", "churn", item)])
    assert cluster.events[0].data.link == "https://console.example.org/k8s/ns/models/services/churn"


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("https://console.example.org/{namespace}/{name}", None),
        ("https://console.example.org/{{{name}}}", None),
        ("https://console.example.org/{pod}", "has {pod}; known are"),
        ("https://console.example.org/{name!r}", "has {name}; known are"),
        ("https://console.example.org/{name", "has a brace without its partner"),
    ],
)
def test_a_template_with_other_fields_is_refused(template: str, problem: str | None) -> None:
    found = link_problem(template)
    assert found is None if problem is None else (found or "").startswith(problem)
