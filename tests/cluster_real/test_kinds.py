"""Every kind on a real API server, with the rights of the manifest, and a restored etcd."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from monitor.cluster.kinds import KINDS
from monitor.cluster.mapping import MappingSettings
from tests.cluster.test_changes import DEPLOYED, REMOVED, ROLLED_BACK, UPGRADED
from tests.cluster.test_kinds import MODEL_SERVER as DESCRIBED
from tests.cluster_real import definitions
from tests.cluster_real.definitions import Resource
from tests.cluster_real.servers import Api
from tests.cluster_real.test_rollouts import V1, V2, of, running, upgrade_of
from tests.cluster_real.workloads import DaemonSet, Deployment, Namespace, StatefulSet
from tests.waiting import until, wait_for

pytestmark = [pytest.mark.integration_test, pytest.mark.timeout(600)]

CHANGED = ("upgraded", "version-changed")
READY = [{"type": "Ready", "status": "True"}]
IMAGES = (V1, V2, "registry:5000/models/churn:3")


class Subject:
    """A service of some kind that can be brought to version 1, 2 or 3, and waits for it."""

    def __init__(self, name: str, create: Callable[[], None], go: Callable[[int], None]) -> None:
        self.name = name
        self.create = create
        self.go = go


@pytest.fixture
def served(api: Api, models: Namespace) -> Iterator[Namespace]:
    """A namespace on a server with the custom resources and a node, and the rights for all."""
    definitions.define(api)
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}}
    api.apply([node])
    role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/recodex-monitor-cluster"
    before = api.call("GET", role)
    resources = [kind.resource for kind in KINDS.values()]
    rules = [
        {"apiGroups": [group], "resources": [plural], "verbs": ["list", "watch"]}
        for group, plural in [
            *((each.group, each.plural) for each in resources),
            ("ml.example.org", "modelservers"),
        ]
    ]
    merge = "application/merge-patch+json"
    api.call("PATCH", role, {"rules": rules}, of=merge)
    yield models
    api.call("PATCH", role, {"rules": before["rules"]}, of=merge)
    api.call("DELETE", "/api/v1/nodes/node-1")


def workload(models: Namespace, class_: type[Deployment], name: str) -> Subject:
    made = class_(models, name)

    def create() -> None:
        made.create(IMAGES[0])
        made.stands()

    def go(version: int) -> None:
        made.set_image(IMAGES[version - 1])
        made.stands()

    return Subject(name, create, go)


def described(
    made: Resource, name: str, spec: Callable[[int], dict[str, Any]], follow: Callable[[int], None]
) -> Subject:
    """Return a resource by its spec, and what its controller would write (``follow``)."""

    def create() -> None:
        made.create(**spec(1))
        follow(1)

    def go(version: int) -> None:
        made.change(**spec(version))
        follow(version)

    return Subject(name, create, go)


def rollout(models: Namespace, name: str) -> Subject:
    """A Rollout whose ReplicaSets are real; what Argo's controller writes, this writes."""
    made = Resource(models, definitions.ROLLOUT, name)
    sets = f"/apis/apps/v1/{models.path}/replicasets"
    revisions: list[int] = []

    def spec(version: int) -> dict[str, Any]:
        container = {"name": "model", "image": IMAGES[version - 1]}
        return {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [container]},
            },
        }

    def follow(version: int) -> None:
        revisions.append(version)
        hashed = f"{version}{version}{version}"
        uid = models.api.call("GET", made.path)["metadata"]["uid"]
        labels = {"app": name, "rollouts-pod-template-hash": hashed}
        template = spec(version)["template"]
        owner = {
            **{"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": name, "uid": uid},
            "controller": True,
        }
        key = "rollout.argoproj.io/revision"
        former = [str(n) for n, each in enumerate(revisions[:-1], 1) if each == version]
        models.api.apply(
            [
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "metadata": {
                        "name": f"{name}-{hashed}",
                        "namespace": models.name,
                        "labels": labels,
                        "annotations": {
                            key: str(len(revisions)),
                            f"{key}-history": ",".join(former),
                        },
                        "ownerReferences": [owner],
                    },
                    "spec": {
                        "replicas": 1,
                        "selector": {"matchLabels": labels},
                        "template": {**template, "metadata": {"labels": labels}},
                    },
                }
            ]
        )
        wait_for(
            lambda: models.api.call("GET", f"{sets}/{name}-{hashed}")["status"].get(
                "availableReplicas"
            ),
            f"{name}: its pod",
        )
        made.annotate(key, str(len(revisions)))
        counts = dict.fromkeys(
            ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 1
        )
        made.reach(phase="Healthy", currentPodHash=hashed, stableRS=hashed, **counts)

    return described(made, name, spec, follow)


def inference_service(models: Namespace, name: str) -> Subject:
    made = Resource(models, definitions.INFERENCE_SERVICE, name)

    def spec(version: int) -> dict[str, Any]:
        uri = f"s3://models/{version}"
        return {"predictor": {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": uri}}}

    def follow(version: int) -> None:
        if version > 1:
            made.reach(conditions=READY, modelStatus={"transitionStatus": "InProgress"})
        made.reach(conditions=READY, modelStatus={"transitionStatus": "UpToDate"})

    return described(made, name, spec, follow)


def knative_service(models: Namespace, name: str) -> Subject:
    made = Resource(models, definitions.KNATIVE_SERVICE, name)

    def spec(version: int) -> dict[str, Any]:
        container = {"name": "user", "image": IMAGES[version - 1]}
        return {"template": {"spec": {"containers": [container]}}}

    def follow(version: int) -> None:
        revision = f"{name}-{version:05}"
        shares = [{"revisionName": revision, "latestRevision": True, "percent": 100}]
        latest = {"latestCreatedRevisionName": revision, "latestReadyRevisionName": revision}
        made.reach(conditions=READY, traffic=shares, **latest)

    return described(made, name, spec, follow)


def model_server(models: Namespace, name: str) -> Subject:
    made = Resource(models, definitions.MODEL_SERVER, name)

    def spec(version: int) -> dict[str, Any]:
        return {"model": {"version": str(version)}}

    def follow(version: int) -> None:
        del version
        made.reach(conditions=READY)

    return described(made, name, spec, follow)


def all_of(models: Namespace) -> list[Subject]:
    return [
        workload(models, Deployment, "deployment"),
        workload(models, StatefulSet, "stateful-set"),
        workload(models, DaemonSet, "daemon-set"),
        rollout(models, "rollout"),
        inference_service(models, "inference-service"),
        knative_service(models, "knative-service"),
        model_server(models, "model-server"),
    ]


BY_VERSION = {"inference-service", "model-server"}


def upgrade_of_kind(name: str) -> tuple[str, str]:
    return CHANGED if name in BY_VERSION else UPGRADED


SETTINGS: dict[str, Any] = {
    "kinds": tuple(kind for kind in KINDS if kind != "DeploymentConfig"),
    "custom_kinds": (DESCRIBED,),
    "link": "https://console.example.org/{namespace}/{plural}/{name}",
}


async def at_once(*acts: Callable[[], object]) -> None:
    await asyncio.gather(*(asyncio.to_thread(act) for act in acts))


async def another_second() -> None:
    """Wait for the next second: the server's times have no fractions."""
    now = int(time.time())
    await until(lambda: int(time.time()) > now)


async def told(run: Any, expected: dict[str, list[tuple[str, str]]]) -> None:
    """Wait for the events of each service; pods of workloads are reported, too."""
    try:
        await until(lambda: all(len(of(run, name)) >= len(expected[name]) for name in expected))
    finally:
        assert {name: of(run, name) for name in expected} == expected


async def test_every_kind_is_told_through_a_restore_of_etcd(
    api: Api, served: Namespace, tmp_path: Path
) -> None:
    subjects = all_of(served)
    expected = {subject.name: [DEPLOYED] for subject in subjects}
    async with running(served, tmp_path, **SETTINGS) as run:
        await run.healthy()
        await at_once(*(subject.create for subject in subjects))
        await told(run, expected)
        backup = await asyncio.to_thread(api.backup)
        for subject in subjects:
            expected[subject.name].append(upgrade_of_kind(subject.name))
        await at_once(*(lambda s=subject: s.go(2) for subject in subjects))
        await told(run, expected)
        assert all("/models-" in (event.link or "") for event in run.events)

        # The cluster goes back to what it was; then it is upgraded under the same numbers.
        await asyncio.to_thread(api.restore, backup)
        for subject in subjects:
            expected[subject.name].append(ROLLED_BACK)
        await told(run, expected)
        for subject in subjects:
            expected[subject.name].append(upgrade_of_kind(subject.name))
        await at_once(*(lambda s=subject: s.go(3) for subject in subjects))
        await told(run, expected)
        assert len(set(run.ids)) == len(run.ids)
        assert run.part.state().health.name == "OK", run.part.state()


async def test_what_nobody_owns_is_deployed_and_removed(
    api: Api, served: Namespace, tmp_path: Path
) -> None:
    labels = {"app.kubernetes.io/component": "model", "app": "bare"}
    container = {"name": "model", "image": V1}
    pods, sets = (
        f"/api/v1/{served.path}/pods",
        f"/apis/apps/v1/{served.path}/replicasets",
    )
    async with running(served, tmp_path, **SETTINGS) as run:
        await run.healthy()
        metadata = {"name": "pod", "labels": {**labels, "app": "pod"}}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
        api.call("POST", pods, {**pod, "spec": {"containers": [container]}})
        template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
        spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
        metadata = {"name": "set", "labels": labels}
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata}
        api.call("POST", sets, {**owner, "spec": spec})
        await told(run, {"pod": [DEPLOYED], "set": [DEPLOYED]})
        api.call("DELETE", f"{pods}/pod")
        api.call("DELETE", f"{sets}/set")
        await told(run, {"pod": [DEPLOYED, REMOVED], "set": [DEPLOYED, REMOVED]})


async def test_a_canary_in_a_group_is_told_until_it_takes_over(
    models: Namespace, tmp_path: Path
) -> None:
    labels = {"canary.example.org/of": "churn"}
    mapping = MappingSettings(group="label:canary.example.org/of")
    main, canary = Deployment(models, "main"), Deployment(models, "canary")
    async with running(models, tmp_path, mapping=mapping) as run:
        await run.healthy()
        main.create(V1, replicas=3, labels=labels)
        await told(run, {"churn": [DEPLOYED]})
        await another_second()
        canary.create(V2, labels=labels)
        expected = [DEPLOYED, ("upgraded", "canary")]
        await told(run, {"churn": expected})
        main.set_image(V2)
        expected.append(UPGRADED)
        await told(run, {"churn": expected})
        await another_second()
        canary.set_image(IMAGES[2])
        expected.append(("upgraded", "canary"))
        await told(run, {"churn": expected})
        canary.delete()
        expected.append(("rolledback", "canary"))
        await told(run, {"churn": expected})
        main.delete()
        await told(run, {"churn": [*expected, REMOVED]})
        assert [event.version for event in run.events] == ["1", "2", "2", "3", "2", "2"]


async def test_the_deployments_of_a_knative_service_are_one_service(
    models: Namespace, tmp_path: Path
) -> None:
    labels = {"serving.knative.dev/service": "churn"}
    mapping = MappingSettings(group="label:serving.knative.dev/service")
    first, second = Deployment(models, "churn-00001"), Deployment(models, "churn-00002")
    async with running(models, tmp_path, mapping=mapping) as run:
        await run.healthy()
        first.create(V1, labels=labels)
        await told(run, {"churn": [DEPLOYED]})
        await another_second()
        second.create(V2, labels=labels)
        await told(run, {"churn": [DEPLOYED, UPGRADED]})
        first.scale(0)
        await at_once(first.stands)
        first.scale(1)
        await at_once(first.stands)
        second.delete()
        await told(run, {"churn": [DEPLOYED, UPGRADED, ROLLED_BACK]})
        first.delete()
        await told(run, {"churn": [DEPLOYED, UPGRADED, ROLLED_BACK, REMOVED]})


async def test_the_event_names_who_changed_it_and_why(models: Namespace, tmp_path: Path) -> None:
    link = "https://console.example.org/{cluster}/{plural}/{name}"
    async with running(models, tmp_path, link=link) as run:
        await run.healthy()
        made = Deployment(models, "churn", manager="helm")
        await at_once(lambda: made.create(V1))
        await at_once(made.stands)
        made.annotate("kubernetes.io/change-cause", "a better model")
        made.manager = "keda"
        made.scale(2)
        await at_once(made.stands)
        made.manager = "argocd-controller"
        made.set_image(V2)
        await at_once(made.stands)
        await told(run, {"churn": [DEPLOYED, UPGRADED]})
        deployed, upgraded = run.events[0], upgrade_of(run, "churn")
        assert (deployed.changed_by, deployed.change_cause) == ("helm", None)
        assert (upgraded.changed_by, upgraded.change_cause) == (
            "argocd-controller",
            "a better model",
        )
        assert upgraded.link == "https://console.example.org/test/deployments/churn"
        assert upgraded.duration is not None


async def test_the_version_may_be_in_the_environment(models: Namespace, tmp_path: Path) -> None:
    mapping = MappingSettings(version=("env:THREADS",))
    async with running(models, tmp_path, mapping=mapping) as run:
        await run.healthy()
        made = Deployment(models, "churn")
        await at_once(lambda: made.create(V1))
        made.set_environment("8")
        await at_once(made.stands)
        await told(run, {"churn": [DEPLOYED]})
        made.set_environment("16")
        await at_once(made.stands)
        await told(run, {"churn": [DEPLOYED, CHANGED]})
        event = upgrade_of(run, "churn")
        assert (event.previous_version, event.version) == ("8", "16")
