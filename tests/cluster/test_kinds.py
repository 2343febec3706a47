"""Each kind of object: when it is deployed, upgraded, rolled back, failed and removed."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import pytest

from monitor.cluster.kinds.custom import CustomKind, CustomKindSettings
from monitor.errors import SettingError
from tests.cluster.memory import MemoryCluster, told
from tests.cluster.play import LABELS, Object, Play, Write
from tests.cluster.plays import DaemonSetPlay, DeploymentPlay, RolloutPlay, StatefulSetPlay

V1, V2, V3 = "models/churn:1", "models/churn:2", "models/churn:3"
DEPLOYED, REMOVED = ("deployed", "created"), ("removed", "deleted")
UPGRADED, ROLLED_BACK = ("upgraded", "image-changed"), ("rolledback", "rollback")
FAILED = ("failed", "failed")


@pytest.mark.parametrize("kind", [StatefulSetPlay, DaemonSetPlay, RolloutPlay])
def test_a_workload_is_told_from_its_first_rollout_to_its_end(kind: type[Play]) -> None:
    cluster = MemoryCluster("StatefulSet", "DaemonSet", "Rollout")
    cluster.start()
    play = kind()
    cluster.play(play.create(V1))
    first = play.template
    cluster.play(play.set_image(V2), play.undo(first), play.scale(3), play.flap())
    cluster.play(play.set_environment("8"), play.set_image(V3), play.annotate("a", "b"))
    cluster.play(play.delete())
    assert told(cluster.events) == [DEPLOYED, UPGRADED, ROLLED_BACK, UPGRADED, REMOVED]
    assert [event.data.version for event in cluster.events] == ["1", "2", "1", "3", "3"]
    assert all("@sha256:" in (event.data.images[0].before or "") for event in cluster.events[1:])
    assert cluster.events[0].source.endswith(f"/{play.plural}/churn")


def test_a_rollout_that_fails_is_told_and_so_is_its_end() -> None:
    cluster = MemoryCluster("Rollout")
    cluster.start()
    play = RolloutPlay()
    cluster.play(play.create(V1))
    first = play.template
    cluster.play(play.fail(V2), play.undo(first))
    assert told(cluster.events) == [DEPLOYED, FAILED, ROLLED_BACK]
    assert cluster.events[1].data.message == "ProgressDeadlineExceeded: no pods"


def test_a_rollback_of_a_rollout_is_known_though_its_replica_sets_have_defaults() -> None:
    cluster = MemoryCluster("Rollout")
    cluster.start()
    play = RolloutPlay()

    def follow(steps: Iterable[list[Write]]) -> None:
        for step in steps:
            for each in step:
                if each.plural == "replicasets" and each.item is not None:
                    each.item["spec"]["template"]["spec"]["restartPolicy"] = "Always"
            cluster.step(step)

    follow(play.create(V1))
    first = play.template
    follow(play.set_image(V2))
    follow(play.undo(first))
    assert told(cluster.events) == [DEPLOYED, UPGRADED, ROLLED_BACK]


def replica_set(owner: Object | None = None, available: int = 2) -> Object:
    return {
        "metadata": {
            **{"name": "churn", "namespace": "models", "uid": "rs", "labels": LABELS},
            **{"generation": 1, "ownerReferences": [owner] if owner else []},
        },
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "churn"}},
            "template": {"spec": {"containers": [{"name": "server", "image": V1}]}},
        },
        "status": {"observedGeneration": 1, "replicas": 2, "availableReplicas": available},
    }


def write(plural: str, item: Object | None) -> list[Write]:
    return [Write(plural, "models", "churn", copy.deepcopy(item))]


def test_a_replica_set_that_nobody_owns_is_deployed_and_removed() -> None:
    cluster = MemoryCluster("ReplicaSet")
    cluster.start()
    owner = {"kind": "Deployment", "name": "churn", "uid": "d", "controller": True}
    cluster.step(write("replicasets", replica_set(owner)))
    assert cluster.events == []
    cluster.step(write("replicasets", replica_set(available=1)))
    cluster.step(write("replicasets", replica_set()))
    changed = replica_set()
    changed["spec"]["template"]["spec"]["containers"][0]["image"] = V2
    cluster.step(write("replicasets", changed))
    cluster.step(write("replicasets", replica_set(owner)))
    assert told(cluster.events) == [DEPLOYED, REMOVED]


def test_a_pod_that_nobody_owns_is_deployed_and_removed() -> None:
    cluster = MemoryCluster("Pod")
    cluster.start()
    play = DeploymentPlay(replicas=1)
    for step in play.create(V1):
        for each in step:
            if each.plural == "pods" and each.item is not None:
                del each.item["metadata"]["ownerReferences"]
                pod = each
        cluster.step(step)
    cluster.relist()
    cluster.step([Write("pods", pod.namespace, pod.name, None)])
    assert told(cluster.events) == [DEPLOYED, REMOVED]
    assert "@sha256:" in (cluster.events[0].data.images[0].after or "")


class Resource:
    """A custom resource, whose controller follows when the test says so."""

    def __init__(self, plural: str, spec: Object) -> None:
        self.plural = plural
        metadata: Object = {"name": "churn", "namespace": "models", "uid": plural, "labels": LABELS}
        # As every object of a real server has them.
        managed = {
            "manager": "helm",
            "operation": "Update",
            "fieldsV1": {"f:spec": {"f:model": {}}},
        }
        metadata["managedFields"] = [managed]
        self.item: Object = {"metadata": {**metadata, "generation": 0}, "spec": spec, "status": {}}

    def change(self, **spec: Any) -> list[Write]:
        self.item["spec"].update(copy.deepcopy(spec))
        self.item["metadata"]["generation"] += 1
        return write(self.plural, self.item)

    def reach(self, **status: Any) -> list[Write]:
        generation = self.item["metadata"]["generation"]
        self.item["status"] = {"observedGeneration": generation, **status}
        return write(self.plural, self.item)


def ready(status: str = "True", **more: Any) -> list[Object]:
    return [{"type": "Ready", "status": status, **more}]


def test_an_inference_service_is_its_storage_uri() -> None:
    cluster = MemoryCluster("InferenceService")
    cluster.start()
    item = Resource("inferenceservices", {})

    def model(uri: str, **more: Any) -> Object:
        found = {"modelFormat": {"name": "sklearn"}, "storageUri": uri}
        return {"predictor": {"model": found, **more}}

    cluster.step(item.change(**model("s3://models/1")))
    cluster.step(item.reach(conditions=ready("False")))
    cluster.step(item.reach(conditions=ready()))
    cluster.step(item.change(**model("s3://models/1", minReplicas=3)))
    cluster.step(item.reach(conditions=ready()))
    cluster.step(item.change(**model("s3://models/2")))
    cluster.step(item.reach(conditions=ready(), modelStatus={"transitionStatus": "InProgress"}))
    cluster.step(item.reach(conditions=ready(), modelStatus={"transitionStatus": "UpToDate"}))
    info = {"reason": "ModelLoadFailed", "message": "no such bucket"}
    cluster.step(item.change(**model("s3://models/3")))
    blocked = {"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": info}
    cluster.step(item.reach(conditions=ready(), modelStatus=blocked))
    cluster.step(item.change(**model("s3://models/2")))
    cluster.step(item.reach(conditions=ready(), modelStatus={"transitionStatus": "UpToDate"}))
    changed = ("upgraded", "version-changed")
    assert told(cluster.events) == [DEPLOYED, changed, FAILED, ROLLED_BACK]
    versions = [event.data.version for event in cluster.events]
    assert versions == [f"s3://models/{number}" for number in (1, 2, 3, 2)]
    assert cluster.events[2].data.message == "no such bucket"


@pytest.mark.parametrize(
    ("place", "version"),
    [
        ({"storageUris": [{"uri": "hf://a/1"}, {"uri": "hf://b"}]}, "hf://a/1,hf://b"),
        ({"storage": {"key": "s3", "path": "models/1"}}, "models/1"),
    ],
)
def test_the_model_of_an_inference_service_may_be_elsewhere(place: Object, version: str) -> None:
    cluster = MemoryCluster("InferenceService")
    cluster.start()
    item = Resource("inferenceservices", {})
    cluster.step(item.change(predictor={"model": {"modelFormat": {"name": "sklearn"}, **place}}))
    cluster.step(item.reach(conditions=ready()))
    assert [event.data.version for event in cluster.events] == [version]


def test_a_knative_service_is_told_with_its_share_of_the_traffic() -> None:
    cluster = MemoryCluster("KnativeService")
    cluster.start()
    item = Resource("services", {})

    def template(image: str) -> Object:
        return {"template": {"spec": {"containers": [{"name": "user", "image": image}]}}}

    def serving(number: int, percent: int) -> Object:
        name = f"churn-{number:05}"
        shares = [{"revisionName": name, "percent": percent}]
        latest = {"latestCreatedRevisionName": name, "latestReadyRevisionName": name}
        return {"conditions": ready(), "traffic": shares, **latest}

    cluster.step(item.change(**template(V1)))
    cluster.step(item.reach(conditions=ready("Unknown")))
    cluster.step(item.reach(**serving(1, 100)))
    cluster.step(item.change(**template(V2)))
    cluster.step(item.reach(**serving(2, 10)))
    cluster.step(item.change(traffic=[]))
    cluster.step(item.reach(**serving(2, 100)))
    cluster.step(item.change(traffic=[]))
    cluster.step(item.reach(**serving(2, 0)))
    assert told(cluster.events) == [
        DEPLOYED,
        UPGRADED,
        ("upgraded", "traffic-changed"),
        ("rolledback", "traffic-changed"),
    ]
    assert [event.data.traffic_percent for event in cluster.events] == [100, 10, 100, 0]
    assert len({event.id for event in cluster.events}) == 4


MODEL_SERVER = CustomKindSettings(
    kind="ModelServer",
    group="ml.example.org",
    version="v1",
    plural="modelservers",
    model_version="spec.model.version",
    ready="status.conditions[?type == 'Ready'] | [0].status",
    failure="status.conditions[?type == 'Failed' && status == 'True'] | [0].message",
)


FILTERS = MODEL_SERVER.replace(
    ready="status.conditions[?type == 'Ready'].status",
    failure="status.conditions[?type == 'Failed' && status == 'True'].message",
)


@pytest.mark.parametrize("settings", [MODEL_SERVER, FILTERS])
def test_a_custom_resource_is_what_the_config_says(settings: CustomKindSettings) -> None:
    settings.verify()
    cluster = MemoryCluster(custom=CustomKind(settings))
    cluster.start()
    item = Resource("modelservers", {})
    failed = [*ready("False"), {"type": "Failed", "status": "True", "message": "no memory"}]
    cluster.step(item.change(model={"version": 1}))
    cluster.step(item.reach(conditions=ready("Unknown")))
    cluster.step(item.reach(conditions=ready()))
    cluster.step(item.change(model={"version": 1}, other=2))
    cluster.step(item.reach(conditions=ready()))
    cluster.step(item.change(model={"version": 2}))
    cluster.step(item.reach(conditions=failed))
    cluster.step(item.reach(conditions=failed))
    cluster.step(item.change(model={"version": 1}))
    cluster.step(item.reach(conditions=ready()))
    cluster.step(item.change(model={"version": 3}))
    cluster.step(item.reach(conditions=ready()))
    cluster.step(write("modelservers", None))
    upgraded = ("upgraded", "version-changed")
    assert told(cluster.events) == [DEPLOYED, FAILED, ROLLED_BACK, upgraded, REMOVED]
    assert [event.data.version for event in cluster.events] == ["1", "2", "1", "3", "3"]
    assert cluster.events[1].data.message == "no memory"
    assert cluster.events[0].data.kind == "ModelServer"
    assert cluster.events[0].data.changed_by == "helm"


@pytest.mark.parametrize("key", ["model_version", "wanted", "reached", "ready", "failure"])
@pytest.mark.parametrize("text", ["status.[", "", "(" * 3000])
def test_what_is_not_jmespath_is_refused(key: str, text: str) -> None:
    with pytest.raises(SettingError) as caught:
        MODEL_SERVER.replace(**{key: text}).verify()
    assert str(caught.value).startswith(f"{key}: not JMESPath: ")
    assert "\n" not in str(caught.value)
