"""A cluster that goes back to an older state: what a fresh list shows is published."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from monitor.cluster.watch import Timing
from tests.cluster.conftest import QUICK, Lab
from tests.cluster.memory import Backup, MemoryCluster, told
from tests.cluster.play import Play
from tests.cluster.plays import DeploymentConfigPlay, DeploymentPlay, StatefulSetPlay
from tests.waiting import until

V = [f"models/churn:{number}" for number in range(10)]
DEPLOYED, UPGRADED = ("deployed", "created"), ("upgraded", "image-changed")
ROLLED_BACK = ("rolledback", "rollback")

KINDS = ("Deployment", "DeploymentConfig", "StatefulSet")


def deployed(kind: type[Play] = DeploymentPlay) -> tuple[MemoryCluster, Play]:
    """Return a cluster that is watched, and a play whose first version runs there."""
    cluster = MemoryCluster(*KINDS)
    cluster.start()
    play = kind()
    cluster.play(play.create(V[1]))
    return cluster, play


def restored_play(cluster: MemoryCluster, backup: tuple[Backup, Play]) -> Play:
    """Put back the objects; return the play that continues from there."""
    cluster.restore(backup[0])
    return backup[1].copy()


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("kind", [DeploymentPlay, DeploymentConfigPlay, StatefulSetPlay])
def test_a_restored_cluster_is_told_from_its_first_list_on(kind: type[Play], restart: bool) -> None:
    cluster, play = deployed(kind)
    cluster.play(play.set_image(V[2]))
    backup = cluster.backup(), play.copy()
    cluster.play(play.set_image(V[3]), play.set_image(V[4]))
    restored = restored_play(cluster, backup)
    if restart:
        cluster.start()
    else:
        cluster.relist()
    for number in (5, 6, 7):
        cluster.play(restored.set_image(V[number]))
    assert told(cluster.events) == [DEPLOYED, *[UPGRADED] * 3, ROLLED_BACK, *[UPGRADED] * 3]
    versions = [event.data.version for event in cluster.events]
    assert versions == ["1", "2", "3", "4", "2", "5", "6", "7"]
    assert len({event.id for event in cluster.events}) == len(cluster.events)


@pytest.mark.parametrize("kind", [DeploymentPlay, StatefulSetPlay])
def test_what_was_rolled_out_again_under_the_same_number_is_told(kind: type[Play]) -> None:
    cluster, play = deployed(kind)
    backup = cluster.backup(), play.copy()
    cluster.play(play.set_image(V[2]))
    cluster.stop()
    restored = restored_play(cluster, backup)
    cluster.play(restored.set_image(V[3]))
    cluster.up = True
    cluster.relist()
    assert told(cluster.events) == [DEPLOYED, UPGRADED, UPGRADED]
    assert cluster.events[-1].data.previous_version == "2"
    assert len({event.id for event in cluster.events}) == 3


def test_a_cluster_that_is_restored_twice_is_told_twice() -> None:
    cluster, play = deployed()
    backup = cluster.backup(), play.copy()
    for number in (2, 3):
        cluster.play(play.set_image(V[number]))
        play = restored_play(cluster, backup)
        cluster.relist()
    assert told(cluster.events) == [DEPLOYED, *[UPGRADED, ROLLED_BACK] * 2]
    assert len({event.id for event in cluster.events}) == 5


def test_a_backup_from_the_middle_of_a_rollout_goes_on_from_there() -> None:
    cluster, play = deployed()
    steps = play.set_image(V[2])
    for _ in range(5):
        cluster.step(next(steps))
    backup = cluster.backup(), play.copy()
    cluster.play(steps, play.set_image(V[3]))
    restored = restored_play(cluster, backup)
    cluster.relist()
    cluster.play(restored.recover())
    assert [event.data.version for event in cluster.events] == ["1", "2", "3", "2"]


FAILED = ("failed", "failed")


def test_the_end_of_a_failure_is_told_where_the_cluster_goes_back_to_before_it() -> None:
    cluster, play = deployed()
    backup = cluster.backup(), play.copy()
    for number in (2, 3):
        cluster.play(play.fail(V[number]))
        play = restored_play(cluster, backup)
        cluster.relist()
        cluster.relist()
    assert told(cluster.events) == [DEPLOYED, *[FAILED, ROLLED_BACK] * 2]
    assert [event.data.version for event in cluster.events] == ["1", "2", "1", "3", "1"]
    assert len({event.id for event in cluster.events}) == 5


def test_a_failure_to_which_the_cluster_goes_back_is_told_again() -> None:
    cluster, play = deployed()
    cluster.play(play.fail(V[2]))
    backup = cluster.backup(), play.copy()
    cluster.play(play.set_image(V[3]))
    restored_play(cluster, backup)
    cluster.relist()
    cluster.relist()
    assert told(cluster.events) == [DEPLOYED, FAILED, UPGRADED, FAILED]
    assert len({event.id for event in cluster.events}) == 4


@pytest.mark.parametrize("kind", [DeploymentPlay, DeploymentConfigPlay])
def test_another_template_that_failed_under_the_same_number_is_told(kind: type[Play]) -> None:
    cluster, play = deployed(kind)
    backup = cluster.backup(), play.copy()
    cluster.play(play.fail(V[2]))
    cluster.stop()
    restored = restored_play(cluster, backup)
    restored.day += 1
    cluster.play(restored.fail(V[3]))
    cluster.up = True
    cluster.relist()
    cluster.relist()
    assert told(cluster.events) == [DEPLOYED, FAILED, FAILED]
    assert [event.data.version for event in cluster.events] == ["1", "2", "3"]
    assert len({event.id for event in cluster.events}) == 3


def test_a_statefulset_whose_only_pod_is_not_ready_yet_is_not_rolled_out_after_a_start() -> None:
    cluster = MemoryCluster(*KINDS)
    cluster.start()
    play = StatefulSetPlay(replicas=1)
    cluster.play(play.create(V[1]), play.fail(V[2]))
    cluster.start()
    assert told(cluster.events) == [DEPLOYED]
    cluster.play(play.recover())
    assert told(cluster.events) == [DEPLOYED, UPGRADED]


def test_a_list_skips_what_is_the_same_and_misses_nothing_that_changed_in_between() -> None:
    cluster, play = deployed()
    backup = cluster.backup(), play.copy()
    cluster.relist()
    cluster.play(play.set_image(V[2]))
    restored_play(cluster, backup)
    cluster.relist()
    assert [event.data.version for event in cluster.events] == ["1", "2", "1"]


@pytest.mark.parametrize("page_objects", [1, 200])
def test_a_lookup_that_fails_in_the_middle_of_a_list_loses_nothing(page_objects: int) -> None:
    cluster = MemoryCluster()
    cluster.page_objects = page_objects
    cluster.start()
    plays = [DeploymentPlay(name) for name in ("a", "b", "c")]
    cluster.play(*(play.create(V[1]) for play in plays))
    cluster.stop()
    cluster.play(*(play.set_image(V[2]) for play in plays))
    cluster.up, cluster.api.failing = True, 2
    cluster.relist()
    assert [(event.data.name, event.data.version) for event in cluster.events] == [
        *(("a", "1"), ("b", "1"), ("c", "1")),
        *(("a", "2"), ("b", "2"), ("c", "2")),
    ]


@pytest.mark.integration_test
async def test_there_is_a_fresh_list_now_and_then(lab: Lab) -> None:
    timing = Timing(
        watch_s=1.0, silence_s=5.0, pause_s=0.02, longest_pause_s=0.2, lasting_s=0.3, relist_s=1.0
    )
    play = DeploymentPlay()
    lab.play(play.create(V[1]))
    async with lab.run(timing=timing) as part:
        await part.count(1)
        # As if the object had been written behind the watch.
        lab.server.replace_silently(play.set_image(V[2]))
        await part.count(2)
        assert part.told[1] == ("churn", "upgraded", "image-changed")


@pytest.mark.integration_test
async def test_an_etcd_restored_while_the_daemon_runs_is_noticed_by_its_version(lab: Lab) -> None:
    play = DeploymentPlay()
    async with lab.run(timing=dataclasses.replace(QUICK, doubt_s=0.1)) as part:
        await part.healthy()
        lab.play(play.create(V[1]), play.set_image(V[2]))
        await part.count(2)
        backup, kept = lab.server.backup(), play.copy()
        lab.play(play.set_image(V[3]), play.set_image(V[4]))
        await part.count(4)
        lists = len(lab.server.requests_of("list", "deployments"))
        lab.server.stop()
        await until(lambda: part.part.state().health.name == "DEGRADED")
        lab.server.restore(backup)
        lab.server.start()
        await part.count(5)
        assert len(lab.server.requests_of("list", "deployments")) > lists
        for number in (5, 6, 7):
            lab.play(kept.set_image(V[number]))
            await asyncio.sleep(0)
        await part.count(8)
        assert [event.version for event in part.events] == ["1", "2", "3", "4", "2", "5", "6", "7"]
