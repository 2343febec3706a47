"""What is published of rollouts, played step by step as the controllers make them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

import pytest

from monitor.cluster.events import event_id
from monitor.cluster.mapping import MappingSettings
from tests.cluster.memory import MemoryCluster, told
from tests.cluster.play import Play, Step, digest_of
from tests.cluster.plays import DeploymentConfigPlay, DeploymentPlay

V1, V2, V3 = "registry:5000/models/churn:1", "registry:5000/models/churn:2", "models/churn:3"
Acts = Callable[[Play], Iterable[Iterable[Step]]]

DEPLOYED = ("deployed", "created")
UPGRADED = ("upgraded", "image-changed")
ROLLED_BACK = ("rolledback", "rollback")
FAILED = ("failed", "failed")
REMOVED = ("removed", "deleted")


def undone(play: Play) -> Iterable[Iterable[Step]]:
    yield play.create(V1)
    first = play.template
    yield play.set_image(V2)
    yield play.undo(first)


def undone_and_redone(play: Play) -> Iterable[Iterable[Step]]:
    yield from undone(play)
    yield play.set_image(V2)


def failed_and_undone(play: Play) -> Iterable[Iterable[Step]]:
    yield play.create(V1)
    first = play.template
    yield play.fail(V2)
    yield play.undo(first)


def environment_undone(play: Play) -> Iterable[Iterable[Step]]:
    yield play.create(V1)
    first = play.template
    yield play.set_environment("8")
    yield play.undo(first)


def rebuilt(play: Play) -> Iterable[Iterable[Step]]:
    yield play.create(V1)
    play.build += 1  # the same tag names other bytes now
    yield play.restart("2021-02-09T08:00:00Z")


TABLE: list[tuple[str, Acts, list[tuple[str, str]]]] = [
    ("created", lambda p: [p.create(V1)], [DEPLOYED]),
    ("upgraded", lambda p: [p.create(V1), p.set_image(V2)], [DEPLOYED, UPGRADED]),
    (
        "upgraded twice",
        lambda p: [p.create(V1), p.set_image(V2), p.set_image(V3)],
        [DEPLOYED, UPGRADED, UPGRADED],
    ),
    ("rolled back", undone, [DEPLOYED, UPGRADED, ROLLED_BACK]),
    (
        "rolled back and upgraded again",
        undone_and_redone,
        # The template of revision 2 again; older than what was published last, revision 3.
        [DEPLOYED, UPGRADED, ROLLED_BACK, ROLLED_BACK],
    ),
    ("failed", lambda p: [p.create(V1), p.fail(V2)], [DEPLOYED, FAILED]),
    ("failed from the first", lambda p: [p.create_and_fail(V1)], [FAILED]),
    ("failed and rolled back", failed_and_undone, [DEPLOYED, FAILED, ROLLED_BACK]),
    (
        "failed and fixed",
        lambda p: [p.create(V1), p.fail(V2), p.set_image(V3)],
        [DEPLOYED, FAILED, UPGRADED],
    ),
    (
        "failed and succeeded after all",
        lambda p: [p.create(V1), p.fail(V2), p.recover()],
        [DEPLOYED, FAILED, UPGRADED],
    ),
    (
        "failed with other settings and succeeded after all",
        lambda p: [p.create(V1), p.fail_with_environment("8"), p.recover()],
        [DEPLOYED, FAILED, ("upgraded", "recovered")],
    ),
    ("removed", lambda p: [p.create(V1), p.delete()], [DEPLOYED, REMOVED]),
    ("removed before it was ready", lambda p: [islice(p.create(V1), 4), p.delete()], []),
    ("scaled", lambda p: [p.create(V1), p.scale(5), p.scale(1)], [DEPLOYED]),
    ("scaled to nothing", lambda p: [p.create(V1), p.scale(0)], [DEPLOYED]),
    ("annotated", lambda p: [p.create(V1), p.annotate("a", "b")], [DEPLOYED]),
    ("flapping", lambda p: [p.create(V1), p.flap(), p.flap()], [DEPLOYED]),
    ("other settings", lambda p: [p.create(V1), p.set_environment("8")], [DEPLOYED]),
    ("other settings undone", environment_undone, [DEPLOYED]),
    (
        "restarted",
        lambda p: [p.create(V1), p.restart("2021-02-09T08:00:00Z")],
        [DEPLOYED],
    ),
    ("rebuilt under the same tag", rebuilt, [DEPLOYED, UPGRADED]),
    (
        "another version by its label",
        lambda p: [p.set_labels(version="1"), p.create(V1), p.set_version("2")],
        [DEPLOYED, ("upgraded", "version-changed")],
    ),
]


@pytest.mark.parametrize("kind", [DeploymentPlay, DeploymentConfigPlay])
@pytest.mark.parametrize(
    ("acts", "expected"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE]
)
def test_tells_what_happened_and_nothing_else(
    kind: type[Play], acts: Acts, expected: list[tuple[str, str]]
) -> None:
    play = kind()
    cluster = MemoryCluster("Deployment", "DeploymentConfig")
    cluster.start()
    for act in acts(play):
        cluster.play(act)
    assert told(cluster.events) == expected
    assert len({event.id for event in cluster.events}) == len(expected)
    assert not any(event.data.catch_up for event in cluster.events)


@pytest.mark.parametrize("kind", [DeploymentPlay, DeploymentConfigPlay])
def test_an_event_says_what_was_and_what_is(kind: type[Play]) -> None:
    play = kind(labels={"app.kubernetes.io/name": "Churn"})
    cluster = MemoryCluster("Deployment", "DeploymentConfig")
    cluster.start()
    cluster.play(play.create(V1), play.set_image(V2))
    event = cluster.events[1]
    data = event.data
    assert event.source == f"/clusters/test/namespaces/models/{play.plural}/churn"
    assert event.key == "models/churn"
    assert event.time == cluster.now
    assert (data.cluster, data.namespace, data.name, data.uid) == (
        "test",
        "models",
        "churn",
        play.uid,
    )
    assert (data.model, data.version, data.previous_version) == ("Churn", "2", "1")
    assert (data.replicas_wanted, data.replicas_ready, data.revision) == (2, 2, 2)
    (image,) = data.images
    assert image.container == "server"
    assert image.before == f"{V1}@{digest_of(V1)}"
    assert image.after == f"{V2}@{digest_of(V2)}"


def test_a_failed_rollout_gives_the_controllers_reason() -> None:
    play = DeploymentPlay()
    cluster = MemoryCluster()
    cluster.start()
    cluster.play(play.create(V1), play.fail(V2))
    data = cluster.events[1].data
    assert data.reason == "ProgressDeadlineExceeded"
    assert data.message is not None
    assert "timed out progressing" in data.message
    assert [image.after for image in data.images] == [V2]


def test_what_keeps_pods_from_being_made_is_in_the_message() -> None:
    play = DeploymentPlay()
    cluster = MemoryCluster()
    cluster.start()
    cluster.play(islice(play.fail_on_quota(V1), 20))
    assert "exceeded quota" in (cluster.events[0].data.message or "")


def test_a_removed_service_says_what_it_ran() -> None:
    play = DeploymentPlay()
    cluster = MemoryCluster()
    cluster.start()
    cluster.play(play.create(V1), play.delete())
    data = cluster.events[1].data
    assert (data.model, data.version, data.replicas_wanted) == ("churn", "1", 0)
    assert data.images[0].before == f"{V1}@{digest_of(V1)}"
    assert data.images[0].after is None


def test_the_first_start_tells_each_service_once_as_a_snapshot() -> None:
    one, two = DeploymentPlay("one"), DeploymentPlay("two")
    cluster = MemoryCluster("Deployment", "Pod")
    cluster.play(one.create(V1), islice(two.create(V1), 5))
    cluster.start()
    assert told(cluster.events) == [("deployed", "snapshot")]
    assert not cluster.events[0].data.catch_up
    assert cluster.events[0].data.images[0].after == f"{V1}@{digest_of(V1)}"
    cluster.stop()
    cluster.start()
    assert len(cluster.events) == 1


@pytest.mark.parametrize("kind", [DeploymentPlay, DeploymentConfigPlay])
def test_a_service_that_lost_a_pod_stands_all_the_same_when_the_daemon_starts(
    kind: type[Play],
) -> None:
    play = kind()
    cluster = MemoryCluster("Deployment", "DeploymentConfig")
    cluster.play(play.create(V1), islice(play.flap(), 2))
    cluster.start()
    assert told(cluster.events) == [("deployed", "snapshot")]
    assert (cluster.events[0].data.replicas_wanted, cluster.events[0].data.replicas_ready) == (2, 1)
    cluster.stop()
    cluster.play(play.set_image(V2), islice(play.flap(), 2))
    cluster.start()
    assert told(cluster.events[1:]) == [UPGRADED]
    assert cluster.events[1].data.catch_up
    cluster.play(play.flap())
    assert len(cluster.events) == 2


def test_what_was_being_rolled_out_at_the_first_start_is_a_snapshot_when_it_stands() -> None:
    play = DeploymentPlay()
    cluster = MemoryCluster()
    rollout = play.create(V1)
    cluster.play(islice(rollout, 5))
    cluster.start()
    cluster.stop()
    cluster.start()
    assert cluster.events == []
    cluster.play(rollout)
    assert told(cluster.events) == [("deployed", "snapshot")]


def test_a_restart_repeats_nothing_and_tells_what_happened_meanwhile() -> None:
    names = ("kept", "upgraded", "undone", "removed", "failed", "twice")
    plays = {name: DeploymentPlay(name) for name in names}
    new = DeploymentPlay("new")
    cluster = MemoryCluster("Deployment", "Pod")
    cluster.start()
    for play in plays.values():
        cluster.play(play.create(V1))
    first = plays["undone"].template
    cluster.play(plays["undone"].set_image(V2))
    before = len(cluster.events)
    cluster.stop()
    cluster.play(
        plays["upgraded"].set_image(V2),
        plays["undone"].undo(first),
        plays["removed"].delete(),
        plays["failed"].fail(V2),
        plays["twice"].set_image(V2),
        plays["twice"].set_image(V3),
        new.create(V1),
    )
    cluster.start()
    since = [event for event in cluster.events[before:] if event.data.kind != "Pod"]
    assert {(event.data.name, *pair) for event, pair in zip(since, told(since), strict=True)} == {
        ("upgraded", *UPGRADED),
        ("undone", *ROLLED_BACK),
        ("removed", *REMOVED),
        ("failed", *FAILED),
        ("twice", *UPGRADED),
        ("new", *DEPLOYED),
    }
    assert all(event.data.catch_up for event in cluster.events[before:])
    assert {event.data.service for event in cluster.events[before:] if event.data.service} == {
        f"Deployment/{name}" for name in ("upgraded", "undone", "twice", "new")
    }
    cluster.stop()
    cluster.start()
    assert len({event.id for event in cluster.events}) == len(cluster.events)


def test_a_rollback_is_known_without_having_seen_the_older_revision() -> None:
    play = DeploymentPlay()
    cluster = MemoryCluster()
    cluster.play(play.create(V1))
    first = play.template
    cluster.play(play.set_image(V2))
    cluster.start()
    cluster.play(play.undo(first))
    assert told(cluster.events) == [("deployed", "snapshot"), ROLLED_BACK]


def test_without_the_right_to_look_things_up_a_seen_revision_is_still_known() -> None:
    play = DeploymentPlay()
    cluster = MemoryCluster()
    cluster.api.forbidden = {"replicasets", "pods"}
    cluster.start()
    for act in undone(play):
        cluster.play(act)
    assert told(cluster.events) == [DEPLOYED, UPGRADED, ROLLED_BACK]
    assert cluster.events[2].data.images[0].after == V1


def test_a_new_object_under_an_old_name_is_another_service() -> None:
    old, new = DeploymentPlay(uid="old"), DeploymentPlay(uid="new")
    cluster = MemoryCluster()
    cluster.start()
    cluster.play(old.create(V1))
    cluster.stop()
    cluster.play(old.delete(), new.create(V1))
    cluster.start()
    assert told(cluster.events) == [DEPLOYED, REMOVED, DEPLOYED]
    assert [event.data.uid for event in cluster.events] == ["old", "old", "new"]


def test_an_object_that_leaves_the_selector_and_comes_back_is_told_each_time() -> None:
    play = DeploymentPlay()
    cluster = MemoryCluster()
    cluster.start()
    for _ in range(3):
        cluster.play(play.create(V1) if not play.item else [[play._write()]])
        cluster.step(next(play.delete()))
    assert told(cluster.events) == [DEPLOYED, REMOVED] * 3
    assert len({event.id for event in cluster.events}) == 6


def test_another_selector_is_no_change_of_the_cluster() -> None:
    old, both = DeploymentPlay("old"), DeploymentPlay("both", labels={"tier": "gold"})
    new = DeploymentPlay("new", labels={"tier": "gold", "app.kubernetes.io/component": "other"})
    cluster = MemoryCluster()
    cluster.start()
    cluster.play(old.create(V1), both.create(V1), new.create(V1))
    assert told(cluster.events) == [DEPLOYED, DEPLOYED]
    cluster.stop()
    cluster.selector = "tier=gold"
    cluster.start()
    assert told(cluster.events[2:]) == [("deployed", "snapshot")]
    assert cluster.events[2].data.name == "new"


def test_a_pod_is_told_once_when_it_is_ready() -> None:
    play = DeploymentPlay()
    cluster = MemoryCluster("Pod")
    cluster.start()
    cluster.play(play.create(V1), play.flap(), play.scale(3), play.set_image(V2))
    names = [event.data.name for event in cluster.events]
    assert len(names) == len(set(names)) == 6
    assert told(cluster.events) == [("ready", "created")] * 6
    event = cluster.events[-1]
    assert event.key == "models/churn"
    assert event.source == f"/clusters/test/namespaces/models/pods/{event.data.name}"
    assert event.data.service == "Deployment/churn"
    assert event.data.images[0].after == f"{V2}@{digest_of(V2)}"
    assert event.data.version == "2"


def test_a_pod_of_a_deployment_config_names_its_service() -> None:
    cluster = MemoryCluster("Pod")
    cluster.start()
    cluster.play(DeploymentConfigPlay().create(V1))
    assert {event.data.service for event in cluster.events} == {"DeploymentConfig/churn"}


def test_a_version_that_is_configured_to_be_the_digest_is_the_digest() -> None:
    mapping = MappingSettings(model=("image-name",), version=("image-digest",))
    play = DeploymentPlay()
    cluster = MemoryCluster(mapping=mapping)
    cluster.start()
    for act in rebuilt(play):
        cluster.play(act)
    data = cluster.events[1].data
    assert (data.model, data.version) == ("churn", digest_of(V1, 1))
    assert data.previous_version == digest_of(V1)


def test_a_look_from_before_what_was_told_changes_nothing() -> None:
    play = DeploymentPlay()
    cluster = MemoryCluster()
    cluster.start()
    cluster.play(play.create(V1))
    stale = [play._write()]
    cluster.play(play.set_image(V2))
    cluster.step(stale)
    assert told(cluster.events) == [DEPLOYED, UPGRADED]


def test_ids_are_made_of_cluster_uid_type_and_revision() -> None:
    assert event_id("c", "u", "t", 1) == event_id("c", "u", "t", 1)
    ids = {
        event_id(cluster, uid, type_, revision, life)
        for cluster in ("a", "ab")
        for uid in ("b", "", "bc")
        for type_ in ("t", "s")
        for revision in (None, 1, 11)
        for life in (0, 1)
    }
    assert len(ids) == 2 * 3 * 2 * 3 * 2
