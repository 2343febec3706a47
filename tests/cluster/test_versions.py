"""Where a model's version is, and which container counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from monitor.cluster.mapping import MappingSettings, map_object
from monitor.cluster.objects import Container, PodSpec, Template
from tests.cluster.memory import MemoryCluster, told
from tests.cluster.play import Object, Step
from tests.cluster.plays import DeploymentPlay

V1, V2 = "registry:5000/serving/vllm:1", "registry:5000/serving/vllm:2"


class ConfiguredPlay(DeploymentPlay):
    """A Deployment whose containers and template tests change."""

    def first(self, *containers: Object, **metadata: dict[str, str]) -> Iterator[Step]:
        """Create it with these containers."""
        self._created(V1)
        self._set(*containers, **metadata)
        yield [self._write()]
        yield from self._roll_out()

    def then(self, *containers: Object, **metadata: dict[str, str]) -> Iterator[Step]:
        """Change them and roll them out."""
        yield self._spec(lambda spec: self._set(*containers, **metadata))
        yield from self._roll_out()

    def _set(self, *containers: Object, **metadata: dict[str, str]) -> None:
        template = self.item["spec"]["template"]
        template["spec"]["containers"] = [dict(each) for each in containers]
        for key, values in metadata.items():
            template["metadata"][key] = {**template["metadata"].get(key, {}), **values}


def server(**more: Any) -> Object:
    return {"name": "server", "image": V1, **more}


ORG = [{"name": "ORG", "value": "org"}]
NAMED = {"name": "NAME", "value": "$(ORG)/a-$(V)"}
M1 = {"name": "M", "value": "org/1"}
PROXY = {"name": "istio-proxy", "image": "istio/proxyv2:1.16.2"}


@pytest.mark.parametrize(
    ("source", "before", "after", "versions"),
    [
        (
            "env:STORAGE_URI",
            [server(env=[{"name": "STORAGE_URI", "value": "s3://models/1"}])],
            [server(env=[{"name": "STORAGE_URI", "value": "s3://models/2"}])],
            ("s3://models/1", "s3://models/2"),
        ),
        (
            "arg:--model",
            [server(args=["--port", "80", "--model=org/a"])],
            [server(args=["--port", "80", "--model", "org/b"])],
            ("org/a", "org/b"),
        ),
        (
            "arg:--model",
            [server(command=["serve", "--model", "a"], args=["--model-name", "x"])],
            [server(command=["serve"], args=["--model-name=x", "--model", "b"])],
            ("a", "b"),
        ),
        (
            "arg:--model",
            [server(command=["/bin/sh", "-c"], args=["exec serve --model 'a b' --port 80"])],
            [server(command=["/bin/sh", "-c"], args=["exec serve --model=c --port 80"])],
            ("a b", "c"),
        ),
        (
            "arg:--model",
            [server(args=["--model", "$(NAME)"], env=[{"name": "NAME", "value": "a"}])],
            [server(args=["--model", "$(NAME)"], env=[{"name": "NAME", "value": "b"}])],
            ("a", "b"),
        ),
        (
            "arg:--model",
            [server(args=["--model", "$(NAME)"], env=[*ORG, {"name": "V", "value": "1"}, NAMED])],
            [server(args=["--model", "$(NAME)"], env=[*ORG, {"name": "V", "value": "2"}, NAMED])],
            ("org/a-1", "org/a-2"),
        ),
        (
            "arg:--model",
            [server(command=["sh", "-c"], args=["serve \\\n  --model \\\n  $M; true"], env=[M1])],
            [server(command=["sh", "-c"], args=['# old\nserve --model="${M:-x}#2"'], env=[M1])],
            ("org/1", "org/1#2"),
        ),
        (
            "env:VERSION",
            [PROXY, server(env=[{"name": "VERSION", "value": "1"}])],
            [PROXY, server(env=[{"name": "VERSION", "value": "2"}])],
            ("1", "2"),
        ),
    ],
)
def test_a_change_of_what_a_source_gives_is_an_upgrade(
    source: str, before: list[Object], after: list[Object], versions: tuple[str, str]
) -> None:
    cluster = MemoryCluster(mapping=MappingSettings(version=(source,)))
    cluster.start()
    play = ConfiguredPlay()
    cluster.play(play.first(*before), play.then(*after))
    assert told(cluster.events) == [("deployed", "created"), ("upgraded", "version-changed")]
    data = cluster.events[1].data
    assert (data.previous_version, data.version) == versions


@pytest.mark.parametrize("key", ["annotations", "labels"])
def test_a_template_may_have_the_version(key: str) -> None:
    source = f"template-{key[:-1]}:example.org/version"
    cluster = MemoryCluster(mapping=MappingSettings(version=(source,), model=(source,)))
    cluster.start()
    play = ConfiguredPlay()
    cluster.play(play.first(server(), **{key: {"example.org/version": "1"}}))
    cluster.play(play.then(server(), **{key: {"example.org/version": "2"}}))
    data = cluster.events[1].data
    assert (data.previous_version, data.version, data.model) == ("1", "2", "2")


@pytest.mark.parametrize("given", ["env", "arg"])
def test_a_source_that_gives_nothing_leaves_it_to_the_next(given: str) -> None:
    sources = {"env": "env:MODEL", "arg": "arg:--model"}
    elsewhere = {"name": "MODEL", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}
    cluster = MemoryCluster(mapping=MappingSettings(version=(sources[given], "image-tag")))
    cluster.start()
    cluster.play(ConfiguredPlay().first(server(env=[elsewhere], args=["--model", "--port=1"])))
    assert cluster.events[0].data.version == "1"


@pytest.mark.parametrize(
    ("containers", "annotations", "container", "version"),
    [
        ([PROXY, server()], {}, None, "1"),
        ([server(), PROXY], {}, None, "1"),
        ([PROXY], {}, None, "1.16.2"),
        ([{"name": "a", "image": "a:7"}, server()], {}, None, "7"),
        ([{"name": "a", "image": "a:7"}, server()], {"default-container": "server"}, None, "1"),
        ([PROXY, server()], {"default-container": "istio-proxy"}, None, "1.16.2"),
        ([PROXY, server()], {"default-container": "istio-proxy"}, "server", "1"),
        ([PROXY, server()], {"default-container": "gone"}, "gone", "1"),
    ],
)
@pytest.mark.parametrize("kind", ["Deployment", "Pod"])
def test_the_container_that_counts(
    containers: list[Object],
    annotations: dict[str, str],
    container: str | None,
    version: str,
    kind: str,
) -> None:
    cluster = MemoryCluster(kind, mapping=MappingSettings(container=container))
    cluster.start()
    found = {f"kubectl.kubernetes.io/{key}": value for key, value in annotations.items()}
    cluster.play(ConfiguredPlay().first(*containers, annotations=found))
    assert cluster.events[0].data.version == version


def test_an_init_container_counts_only_where_it_is_named() -> None:
    template = Template(
        spec=PodSpec(
            containers=[Container(name="envoy", image="envoy:2")],
            init_containers=[Container(name="download", image="churn:1")],
        )
    )
    versions = [
        map_object(
            MappingSettings(container=container),
            name="churn",
            labels={},
            annotations={},
            images=template.spec.images(),
            template=template,
        ).version
        for container in (None, "download")
    ]
    assert versions == ["2", "1"]


@pytest.mark.parametrize("container", ["server", None])
def test_only_the_configured_container_is_news(container: str | None) -> None:
    cluster = MemoryCluster(mapping=MappingSettings(container=container))
    cluster.start()
    play = ConfiguredPlay()
    newer = {**PROXY, "image": "istio/proxyv2:1.17.0"}
    cluster.play(play.first(server(), PROXY), play.then(server(), newer), play.then(server()))
    told_of_sidecar = [("upgraded", "image-changed")] * 2 if container is None else []
    assert told(cluster.events) == [("deployed", "created"), *told_of_sidecar]
    cluster.play(play.then(server(image=V2)))
    assert told(cluster.events)[-1] == ("upgraded", "image-changed")
    assert cluster.events[-1].data.version == "2"


class MixedPlay(DeploymentPlay):
    """A Deployment of a tag that two nodes pulled at different times: its pods differ."""

    builds: tuple[int, ...] = (0, 1)

    def _ready_pod(self, name: str, *, ready: bool = True) -> Any:
        self.build = self.builds[self._pod_number % len(self.builds)]
        return super()._ready_pod(name, ready=ready)


def test_digests_that_overlap_are_no_news() -> None:
    mapping = MappingSettings(version=("image-digest",))
    for settings in (MappingSettings(), mapping):
        cluster = MemoryCluster(mapping=settings)
        cluster.start()
        play = MixedPlay(replicas=4)
        cluster.play(play.create(V1))
        for hour in range(4):
            cluster.play(play.restart(f"2021-02-09T0{hour}:00:00Z"))
        assert told(cluster.events) == [("deployed", "created")]
        play.builds = (1, 2)
        cluster.play(play.restart("2021-02-09T10:00:00Z"))
        assert told(cluster.events) == [("deployed", "created")]
        play.builds = (3, 4)
        cluster.play(play.restart("2021-02-09T11:00:00Z"))
        assert told(cluster.events)[1:] == [("upgraded", "image-changed")]


@pytest.mark.parametrize("at_first", [True, False])
def test_a_service_without_pods_learns_its_digests_when_it_has_some(at_first: bool) -> None:
    cluster = MemoryCluster()
    cluster.start()
    play = DeploymentPlay(replicas=0 if at_first else 2)
    cluster.play(play.create(V1))
    if not at_first:
        cluster.play(play.scale(0))
    else:
        cluster.play(play.scale(2))
        cluster.play(play.scale(0))
    play.build += 1
    cluster.play(play.restart("2021-02-09T08:00:00Z"))
    assert told(cluster.events) == [("deployed", "created")]
    cluster.play(play.scale(2))
    assert told(cluster.events)[1:] == [("upgraded", "image-changed")]
    (image,) = cluster.events[1].data.images
    assert image.before != image.after
    play.build += 1
    cluster.play(play.restart("2021-02-09T09:00:00Z"))
    assert len(cluster.events) == 3


@pytest.mark.parametrize(
    ("owner", "labels", "service"),
    [
        ("ReplicaSet/churn-5d9f", {"pod-template-hash": "5d9f"}, "Deployment/churn"),
        ("ReplicaSet/my-model", {}, None),
        ("ReplicaSet/my-model", {"pod-template-hash": "5d9f"}, None),
        ("ReplicaSet/churn-5d9f", {"rollouts-pod-template-hash": "5d9f"}, "Rollout/churn"),
        ("ReplicaSet/churn-5d9f", {}, None),
        ("StatefulSet/churn", {}, "StatefulSet/churn"),
        ("DaemonSet/churn", {}, "DaemonSet/churn"),
        ("Job/churn-1", {}, None),
    ],
)
def test_a_pod_names_only_the_service_that_is_proven(
    owner: str, labels: dict[str, str], service: str | None
) -> None:
    cluster = MemoryCluster("Pod")
    cluster.start()
    play = DeploymentPlay(replicas=1)
    for step in play.create(V1):
        for write in step:
            if write.plural == "pods" and write.item is not None:
                kind, _, name = owner.partition("/")
                reference = {"kind": kind, "name": name, "uid": "o", "controller": True}
                metadata = write.item["metadata"]
                metadata["ownerReferences"] = [reference]
                metadata["labels"].pop("pod-template-hash")
                metadata["labels"] |= labels
        cluster.step(step)
    assert [event.data.service for event in cluster.events] == [service]
