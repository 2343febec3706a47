"""Several objects as one service: when it is deployed, upgraded and removed, and its canaries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from monitor.cluster.mapping import MappingSettings
from tests.cluster.memory import MemoryCluster, told
from tests.cluster.play import Step, Write, digest_of
from tests.cluster.plays import DeploymentPlay, StatefulSetPlay
from tests.cluster.test_changes import DEPLOYED, FAILED, REMOVED, ROLLED_BACK, UPGRADED
from tests.cluster.test_versions import ConfiguredPlay, server

V1, V2, V3 = "models/churn:1", "models/churn:2", "models/churn:3"
KNATIVE = "serving.knative.dev/service"


def revision(number: int, **more: Any) -> DeploymentPlay:
    labels = {KNATIVE: "churn", "canary.example.org/of": "churn"}
    return DeploymentPlay(f"churn-{number:05}", labels=labels, **more)


def grouped(label: str = KNATIVE) -> MemoryCluster:
    cluster = MemoryCluster(mapping=MappingSettings(group=f"label:{label}", model=("name",)))
    cluster.start()
    return cluster


def create(cluster: MemoryCluster, play: DeploymentPlay, image: str, minute: int) -> None:
    play.created = f"2021-02-08T20:{minute:02}:00Z"
    cluster.play(play.create(image))


@pytest.mark.parametrize("restart", [False, True])
def test_the_revisions_of_a_knative_service_are_one_service(restart: bool) -> None:
    cluster = grouped()

    def again() -> None:
        if restart:
            cluster.stop()
            cluster.start()

    one, two, three = (revision(number) for number in (1, 2, 3))
    create(cluster, one, V1, 1)
    again()
    create(cluster, two, V2, 2)
    cluster.play(one.scale(0))
    again()
    cluster.play(two.scale(0), two.scale(2))
    create(cluster, three, V3, 3)
    cluster.play(two.scale(0), one.delete())
    again()
    # The traffic goes back to the former revision.
    cluster.play(two.scale(2), three.delete())
    again()
    cluster.play(two.delete())
    assert told(cluster.events) == [DEPLOYED, UPGRADED, UPGRADED, ROLLED_BACK, REMOVED]
    assert [event.data.version for event in cluster.events] == ["1", "2", "3", "2", "2"]
    assert {(event.data.name, event.key) for event in cluster.events} == {("churn", "models/churn")}
    assert len({event.id for event in cluster.events}) == 5


def test_what_is_removed_while_the_daemon_is_down_is_removed_once() -> None:
    cluster = grouped()
    one, two = revision(1), revision(2)
    create(cluster, one, V1, 1)
    create(cluster, two, V2, 2)
    cluster.stop()
    cluster.play(one.delete(), two.delete())
    cluster.start()
    assert told(cluster.events) == [DEPLOYED, UPGRADED, REMOVED]


def test_a_canary_is_told_as_one_until_it_takes_over() -> None:
    cluster = grouped("canary.example.org/of")
    main, canary = revision(1, replicas=3), revision(2, replicas=1)
    create(cluster, main, V1, 1)
    create(cluster, canary, V2, 2)
    assert told(cluster.events) == [DEPLOYED, ("upgraded", "canary")]
    assert [event.data.version for event in cluster.events] == ["1", "2"]
    assert cluster.events[1].data.images[0].after == f"{V2}@{digest_of(V2)}"
    cluster.play(main.set_image(V2))
    assert told(cluster.events)[2:] == [UPGRADED]
    cluster.play(canary.delete(), main.delete())
    assert told(cluster.events)[3:] == [REMOVED]


class StampedPlay(DeploymentPlay):
    """A Deployment that says when its template was changed."""

    at = 0

    def _write(self) -> Write:
        time = f"2021-02-08T21:{self.at:02}:00Z"
        fields: dict[str, Any] = {"f:spec": {"f:template": {}}}
        self.item["metadata"]["managedFields"] = [
            {"manager": "helm", "time": time, "fieldsV1": fields}
        ]
        return super()._write()

    def changed(self, act: Iterator[Step], minute: int) -> Iterator[Step]:
        """Play an act that changes the template at this minute."""
        self.at = minute
        return act


def test_a_canary_that_was_made_with_the_rest_is_told_until_it_takes_over() -> None:
    cluster = grouped("canary.example.org/of")
    labels = {"canary.example.org/of": "churn"}
    # Its name is that of the group, too, as is usual.
    main = StampedPlay("churn", labels=labels, replicas=3)
    canary = StampedPlay("canary", labels=labels, replicas=1)
    cluster.play(main.create(V1), canary.create(V1), canary.changed(canary.set_image(V2), 1))
    assert told(cluster.events) == [DEPLOYED, ("upgraded", "canary")]
    # Nothing of this is news, not even while most of the replicas are replaced.
    cluster.play(main.restart("now"), canary.restart("now"), main.flap())
    assert told(cluster.events)[2:] == []
    cluster.play(canary.changed(canary.fail(V3), 2), main.flap())
    cluster.relist()
    assert told(cluster.events)[2:] == [FAILED]
    cluster.play(canary.changed(canary.set_image(V2), 3))
    assert told(cluster.events)[3:] == [ROLLED_BACK, ("upgraded", "canary")]
    cluster.play(main.changed(main.set_image(V3), 4), canary.changed(canary.set_image(V3), 5))
    assert told(cluster.events)[5:] == [UPGRADED]
    assert [event.data.version for event in cluster.events] == ["1", "2", "3", "1", "2", "3"]
    cluster.stop()
    cluster.start()
    assert told(cluster.events)[6:] == []
    cluster.play(main.delete(), canary.delete())
    assert told(cluster.events)[6:] == [REMOVED]


def test_labels_that_differ_between_those_that_run_the_same_are_no_news() -> None:
    cluster = MemoryCluster(mapping=MappingSettings(group="label:canary.example.org/of"))
    cluster.start()
    labels = {"canary.example.org/of": "churn"}
    # Each has its name as the label app, too.
    main = StampedPlay("main", labels=labels, replicas=3)
    canary = StampedPlay("canary", labels=labels, replicas=1)
    cluster.play(main.create(V1), canary.changed(canary.create(V2), 1))
    cluster.play(main.changed(main.set_image(V2), 2))
    assert told(cluster.events) == [DEPLOYED, ("upgraded", "canary"), UPGRADED]
    cluster.play(canary.restart("now"), canary.changed(canary.set_image(V3), 3), canary.delete())
    assert told(cluster.events)[3:] == [("upgraded", "canary"), ("rolledback", "canary")]
    models = [event.data.model for event in cluster.events]
    assert models == ["main", "canary", "main", "canary", "main"]


@pytest.mark.parametrize("away", [False, True])
def test_the_end_of_a_canary_is_told_unless_it_takes_over(away: bool) -> None:
    cluster = grouped("canary.example.org/of")
    main, canary = revision(1, replicas=3), revision(2, replicas=1)
    create(cluster, main, V1, 1)
    create(cluster, canary, V2, 2)
    if away:
        cluster.stop()
    cluster.play(canary.scale(0))
    cluster.start()
    ended = ("rolledback", "canary")
    assert told(cluster.events) == [DEPLOYED, ("upgraded", "canary"), ended]
    data = cluster.events[2].data
    assert (data.previous_version, data.version, data.catch_up) == ("2", "1", away)
    cluster.play(canary.scale(1), canary.delete())
    assert told(cluster.events)[3:] == [("upgraded", "canary"), ended]
    assert len({event.id for event in cluster.events}) == 5


def test_a_canary_may_differ_by_its_argument_only() -> None:
    mapping = MappingSettings(group="label:app.kubernetes.io/part-of", version=("arg:--model",))
    cluster = MemoryCluster(mapping=mapping)
    cluster.start()
    for name, replicas, model in (("main", 3, "a"), ("next", 1, "b")):
        play = ConfiguredPlay(
            name, labels={"app.kubernetes.io/part-of": "churn"}, replicas=replicas
        )
        play.created = f"2021-02-08T20:0{4 - replicas}:00Z"
        cluster.play(play.first(server(args=["--model", model])))
    assert told(cluster.events) == [DEPLOYED, ("upgraded", "canary")]
    assert [event.data.version for event in cluster.events] == ["a", "b"]


def test_groups_of_two_kinds_are_two_services_though_they_have_one_name() -> None:
    mapping = MappingSettings(group="label:app.kubernetes.io/part-of", model=("name",))
    cluster = MemoryCluster("Deployment", "StatefulSet", mapping=mapping)
    cluster.start()
    labels = {"app.kubernetes.io/part-of": "churn"}
    cluster.play(DeploymentPlay("a", labels=labels).create(V1))
    cluster.play(StatefulSetPlay("b", labels=labels).create(V2))
    assert [(e.data.kind, e.data.version) for e in cluster.events] == [
        ("Deployment", "1"),
        ("StatefulSet", "2"),
    ]
    assert len({event.data.uid for event in cluster.events}) == 2


@pytest.mark.parametrize("listed", [False, True])
def test_a_lookup_that_fails_when_a_member_goes_does_not_hide_what_is_left(listed: bool) -> None:
    cluster = grouped("canary.example.org/of")
    main, canary = revision(1, replicas=3), revision(2, replicas=1)
    create(cluster, main, V1, 1)
    create(cluster, canary, V2, 2)
    cluster.up, cluster.api.failing = not listed, 1
    cluster.play(main.delete())
    if listed:
        cluster.relist()
    assert told(cluster.events) == [DEPLOYED, ("upgraded", "canary"), UPGRADED]
    assert cluster.events[-1].data.version == "2"


def test_objects_without_the_label_are_services_of_their_own() -> None:
    cluster = grouped("canary.example.org/of")
    alone, member = DeploymentPlay("alone"), revision(1)
    member.labels["canary.example.org/of"] = "alone"
    cluster.play(alone.create(V1), member.create(V2), alone.set_image(V3), member.set_image(V3))
    assert told(cluster.events) == [DEPLOYED, DEPLOYED, UPGRADED, UPGRADED]
    assert {event.data.name for event in cluster.events} == {"alone"}


def test_setting_a_group_is_no_change_of_the_cluster() -> None:
    cluster = MemoryCluster()
    cluster.start()
    create(cluster, revision(1), V1, 1)
    cluster.stop()
    cluster.mapping = MappingSettings(group=f"label:{KNATIVE}")
    cluster.start()
    cluster.stop()
    cluster.mapping = MappingSettings()
    cluster.start()
    # The last one would be the first again, under its id.
    assert told(cluster.events) == [DEPLOYED, ("deployed", "snapshot")]
    assert [event.data.name for event in cluster.events] == ["churn-00001", "churn"]


@pytest.mark.parametrize("restart", [False, True])
def test_a_failure_that_is_still_there_after_a_rollback_is_told_once(restart: bool) -> None:
    cluster = grouped()
    one, two, three = (revision(number) for number in (1, 2, 3))
    create(cluster, one, V1, 1)
    create(cluster, two, V2, 2)
    cluster.play(one.scale(0))
    three.created = "2021-02-08T20:03:00Z"
    cluster.play(three.create_and_fail(V3))
    if restart:
        cluster.stop()
    cluster.play(one.scale(2), two.scale(0))
    if restart:
        cluster.start()
    cluster.relist()
    cluster.play(three.delete())
    assert told(cluster.events) == [DEPLOYED, UPGRADED, FAILED, ROLLED_BACK]


def test_former_members_that_are_removed_last_are_no_rollback() -> None:
    cluster = grouped()
    one, two = revision(1), revision(2)
    create(cluster, one, V1, 1)
    create(cluster, two, V2, 2)
    cluster.play(one.scale(0), two.delete(), one.delete())
    assert told(cluster.events) == [DEPLOYED, UPGRADED, REMOVED]
    assert cluster.events[-1].data.version == "2"
