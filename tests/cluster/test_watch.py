"""Watching over HTTP: whatever the connection does, each change is published once, in order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable

import pytest

from monitor.cluster.watch import Timing
from monitor.part import Health
from tests.cluster.conftest import QUICK, Lab
from tests.cluster.play import LABELS, Play
from tests.cluster.plays import DeploymentConfigPlay, DeploymentPlay
from tests.servers.kubernetes import Break, Fault
from tests.waiting import until

pytestmark = pytest.mark.integration_test

V1, V2, V3 = "models/churn:1", "models/churn:2", "models/churn:3"


@pytest.mark.parametrize("kind", [DeploymentPlay, DeploymentConfigPlay])
async def test_rollouts_are_told_from_the_first_to_the_last(lab: Lab, kind: type[Play]) -> None:
    async with lab.run(kinds=("Deployment", "DeploymentConfig", "Pod")) as part:
        await part.healthy()
        play = kind()
        lab.play(play.create(V1))
        first = play.template
        await until(lambda: ("churn", "deployed", "created") in part.told)
        lab.play(play.set_image(V2))
        await until(lambda: ("churn", "upgraded", "image-changed") in part.told)
        lab.play(play.undo(first))
        await until(lambda: ("churn", "rolledback", "rollback") in part.told)
        lab.play(play.delete())
        await part.count(4 + 6)
        assert [row for row in part.told if row[0] == "churn"] == [
            ("churn", "deployed", "created"),
            ("churn", "upgraded", "image-changed"),
            ("churn", "rolledback", "rollback"),
            ("churn", "removed", "deleted"),
        ]
        assert sum(row[1] == "ready" for row in part.told) == 6
        assert {record.key for record in part.records} == {"models/churn"}
        headers = part.records[0].headers
        assert headers["ce_specversion"] == "1.0"
        assert headers["ce_source"].startswith("/clusters/test/namespaces/models/")
        assert headers["content-type"] == "application/json"


async def test_a_list_comes_in_pages_that_show_one_moment(lab: Lab) -> None:
    lab.server.page_limit = 2
    plays = [DeploymentPlay(f"m{i}") for i in range(7)]
    late = DeploymentPlay("a-late")

    def between(plural: str, first: int) -> None:
        if plural == "deployments" and first == 2 and not late.item:
            lab.play(late.create(V1), plays[6].set_image(V2))

    for play in plays:
        lab.play(play.create(V1))
    lab.server.before_page = between
    async with lab.run() as part:
        await part.healthy()
        # Seven as they were, and what was written meanwhile.
        await part.count(9)
        lab.play(plays[0].delete())
        await part.count(10)
        assert part.told[-1] == ("m0", "removed", "deleted")
        assert part.told.count(("m6", "upgraded", "image-changed")) == 1
        assert len(set(part.ids)) == 10
        assert {name for name, type_, _ in part.told if type_ == "deployed"} == {
            "a-late",
            *(play.name for play in plays),
        }


async def test_a_list_whose_pages_expire_starts_again(lab: Lab) -> None:
    lab.server.page_limit = 2
    expired: list[int] = []

    def compact(plural: str, first: int) -> None:
        if plural == "deployments" and first and not expired:
            expired.append(first)
            lab.server.compact()

    for i in range(5):
        lab.play(DeploymentPlay(f"m{i}").create(V1))
    lab.server.before_page = compact
    async with lab.run() as part:
        await part.healthy()
        await part.count(5)
        assert expired
        assert sorted(part.told) == [(f"m{i}", "deployed", "snapshot") for i in range(5)]


async def test_bookmarks_keep_a_quiet_watch_from_expiring(lab: Lab) -> None:
    lab.server.bookmark_every_s = 0.05

    async with lab.run() as part:
        await part.healthy()
        # Much happens that this watch does not see; only bookmarks tell it so.
        lab.play(DeploymentConfigPlay("other").create(V1))
        marked = lab.server.marked
        await until(lambda: lab.server.marked > marked + 2)
        lab.server.compact_to_marked()
        lists = len(lab.server.requests_of("list", "deployments"))
        lab.server.break_watches("end")
        play = DeploymentPlay()
        lab.play(play.create(V1))
        await part.count(1)
        assert len(lab.server.requests_of("list", "deployments")) == lists


@pytest.mark.parametrize("gone_as", ["status", "event"])
async def test_what_happened_behind_an_expired_version_is_found_by_listing(
    lab: Lab, gone_as: str
) -> None:
    lab.server.gone_as = gone_as  # type: ignore[assignment]

    names = ("kept", "changed", "removed", "replaced")
    plays = {name: DeploymentPlay(name) for name in names}
    async with lab.run() as part:
        await part.healthy()
        for play in plays.values():
            lab.play(play.create(V1))
        await part.count(4)
        lab.server.stop()
        lab.play(
            plays["changed"].set_image(V2),
            plays["removed"].delete(),
            plays["replaced"].delete(),
            DeploymentPlay("replaced", uid="another").create(V1),
            DeploymentPlay("new").create(V1),
        )
        lab.server.compact()
        lab.server.start()
        await part.count(9)
        assert sorted(part.told[4:]) == [
            ("changed", "upgraded", "image-changed"),
            ("new", "deployed", "created"),
            ("removed", "removed", "deleted"),
            ("replaced", "deployed", "created"),
            ("replaced", "removed", "deleted"),
        ]
        replaced = [told for told in part.told[4:] if told[0] == "replaced"]
        assert [type_ for _, type_, _ in replaced] == ["removed", "deployed"]
        # The daemon was there all the time.
        assert not any(event.catch_up for event in part.events)


@pytest.mark.parametrize("how", ["end", "reset", "truncate", "garbage", "error", "gone", "silence"])
async def test_a_stream_that_breaks_loses_and_repeats_nothing(lab: Lab, how: Break) -> None:
    timing = Timing(
        watch_s=20.0, silence_s=0.4, pause_s=0.02, longest_pause_s=0.1, healthy_s=5.0, lasting_s=0.3
    )

    play = DeploymentPlay()
    async with lab.run(timing=timing) as part:
        await part.healthy()
        lab.play(play.create(V1))
        await part.count(1)
        for number in range(2, 5):
            lab.server.break_watches(how)
            lab.play(play.set_image(f"models/churn:{number}"))
            await part.count(number)
        if how != "gone":  # it continues from where it was, and does not list again
            assert len(lab.server.requests_of("list", "deployments")) == 1
        assert (
            part.told
            == [("churn", "deployed", "created")] + [("churn", "upgraded", "image-changed")] * 3
        )
        await part.healthy()


@pytest.mark.parametrize("metadata", [{"annotations": 5}, {"uid": ""}])
async def test_an_object_that_nothing_can_read_does_not_hold_up_the_others(
    lab: Lab, metadata: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    play = DeploymentPlay()
    async with lab.run() as part:
        await part.healthy()
        lab.play(play.create(V1))
        await part.count(1)
        odd = {"namespace": "models", "name": "odd", "labels": LABELS, **metadata}
        lab.server.write("deployments", {"metadata": odd})
        lab.play(play.set_image(V2))
        await part.count(2)
        assert part.told == [
            ("churn", "deployed", "created"),
            ("churn", "upgraded", "image-changed"),
        ]
        await part.healthy()
    assert count(caplog, "cannot read") == 1


@pytest.mark.parametrize("chunk_bytes", [1, 7, 1000])
async def test_events_may_be_cut_into_chunks_anywhere(lab: Lab, chunk_bytes: int) -> None:
    lab.server.chunk_bytes = chunk_bytes

    play = DeploymentPlay(labels={"note": "Vorhersage-ünïcödé"})
    async with lab.run() as part:
        await part.healthy()
        lab.play(play.create(V1), play.set_image(V2))
        await part.count(2)
        assert [row[1] for row in part.told] == ["deployed", "upgraded"]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(500),
        Fault(503),
        Fault(502),
        Fault(429),
        Fault("reset"),
        Fault("truncate"),
        Fault("garbage"),
        Fault(410),
        Fault(302),
    ],
    ids=lambda fault: str(fault.how),
)
@pytest.mark.parametrize("verb", ["list", "watch"])
async def test_a_request_that_fails_is_made_again(lab: Lab, verb: str, fault: Fault) -> None:
    failing = Fault(fault.how, verb=verb, times=3)  # type: ignore[arg-type]

    play = DeploymentPlay()
    lab.server.fail(failing)
    async with lab.run() as part:
        await until(lambda: failing.times <= 0)
        await part.healthy()
        lab.play(play.create(V1))
        await part.count(1)
        assert part.told == [("churn", "deployed", "created")]


async def test_a_server_that_asks_for_patience_gets_it(lab: Lab) -> None:
    lab.server.fail(Fault(429, verb="list", retry_after="1"))
    async with lab.run() as part:
        await part.healthy()
        first, second = lab.server.requests_of("list", "deployments")[:2]
        assert second.at - first.at >= 1.0


async def test_facts_that_cannot_be_had_at_once_are_waited_for(lab: Lab) -> None:
    play = DeploymentPlay()
    async with lab.run() as part:
        await part.healthy()
        lab.play(play.create(V1))
        first = play.template
        await part.count(1)
        lab.play(play.set_image(V2))
        await part.count(2)
        lab.server.fail(Fault(503, verb="list", plural="replicasets", times=2))
        lab.play(play.undo(first))
        await part.count(3)
        assert part.told[2] == ("churn", "rolledback", "rollback")
        assert "@sha256:" in (part.events[2].images[0].after or "")


async def test_facts_that_are_never_to_be_had_hold_nothing_up(lab: Lab) -> None:
    play = DeploymentPlay()
    lab.server.fail(Fault(503, verb="list", plural="pods", times=1000))
    async with lab.run() as part:
        await part.healthy()
        lab.play(play.create(V1))
        await part.count(1)
        assert part.events[0].images[0].after == V1


def count(caplog: pytest.LogCaptureFixture, text: str) -> int:
    return sum(text in record.getMessage() for record in caplog.records)


async def test_a_forbidden_namespace_is_said_once_and_leaves_the_rest_working(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "monitor")
    lab.server.forbidden = {("deployments", "secret")}

    open_, secret = DeploymentPlay(), DeploymentPlay("hidden", "secret")
    lab.play(secret.create(V1))
    async with lab.run(namespaces=("models", "secret")) as part:
        lab.play(open_.create(V1))
        await part.count(1)
        asked = len(lab.server.requests_of("list", "deployments"))
        await until(lambda: len(lab.server.requests_of("list", "deployments")) > asked + 1)
        state = part.part.state()
        assert state.health is Health.DEGRADED
        assert "Deployment in secret" in state.summary
        assert count(caplog, "Deployment in secret: forbidden") == 1
        lab.server.forbidden = set()
        await part.healthy()
        await part.count(2)
        assert part.told[1] == ("hidden", "deployed", "snapshot")


async def test_a_cluster_without_openshift_is_fine(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "monitor")
    lab.server.openshift = False

    async with lab.run(kinds=("Deployment", "DeploymentConfig", "Pod")) as part:
        await part.healthy()
        await until(lambda: "no DeploymentConfig here" in part.part.state().summary)
        assert count(caplog, "DeploymentConfig in all namespaces: not served") == 1
        lab.play(DeploymentPlay().create(V1))
        await until(lambda: ("churn", "deployed", "created") in part.told)


async def test_an_api_that_is_down_at_the_start_degrades_the_part_until_it_is_up(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "monitor")
    lab.play(DeploymentPlay().create(V1))
    lab.server.stop()

    async with lab.run() as part:
        await until(lambda: part.part.state().health is Health.DEGRADED)
        assert "refused" in part.part.state().summary
        await until(lambda: _restarts(part.part.metrics(), "unreachable") > 2)
        assert count(caplog, "trying again") == 1
        lab.server.start()
        await part.healthy()
        await part.count(1)
        assert part.told == [("churn", "deployed", "snapshot")]


def _restarts(metrics: Iterable[object], reason: str) -> float:
    for metric in metrics:
        if getattr(metric, "name", "") == "cluster_watch_restarts_total":
            for labels, value in metric.samples:  # type: ignore[attr-defined]
                if labels["reason"] == reason:
                    return float(value)
    return 0.0


async def test_a_silent_server_does_not_hold_up_the_stop(lab: Lab) -> None:
    async with lab.run(kinds=("Deployment", "Pod"), timing=QUICK) as part:
        await part.healthy()
        lab.server.break_watches("silence")
        lab.server.fail(Fault("silence", times=10))
    assert not [t.name for t in threading.enumerate() if t.name.startswith("watch-")]


async def test_other_settings_are_taken_up_by_a_reload(lab: Lab) -> None:
    here, there = DeploymentPlay("here", "one"), DeploymentPlay("there", "two")
    lab.play(here.create(V1), there.create(V1))
    async with lab.run(namespaces=("one",)) as part:
        await part.count(1)
        settings = part.part._settings.replace(namespaces=("one", "two"))
        switch = await part.part.prepare(settings)
        switch()
        await part.count(2)
        await part.healthy()
        assert part.told == [
            ("here", "deployed", "snapshot"),
            ("there", "deployed", "snapshot"),
        ]


async def test_a_burst_of_changes_comes_out_in_the_order_of_each_service(lab: Lab) -> None:
    plays = [DeploymentPlay(f"m{i}", replicas=1) for i in range(8)]
    async with lab.run() as part:
        await part.healthy()
        for play in plays:
            lab.play(play.create("models/m:1"))
        for number in range(2, 5):
            for play in plays:
                lab.play(play.set_image(f"models/m:{number}"))
            await asyncio.sleep(0)
        await part.count(32)
        for play in plays:
            versions = [event.version for event in part.events if event.name == play.name]
            assert versions == ["1", "2", "3", "4"]


async def test_objects_that_are_too_long_for_a_page_come_in_smaller_pages(lab: Lab) -> None:
    for number in range(60):
        play = DeploymentPlay(f"m{number:02}", labels={"note": "short"})
        lab.play(play.create(V1))
        play.item["metadata"]["annotations"]["note"] = "x" * 340_000
        lab.play(play.annotate("more", "y"))
    async with lab.run() as part:
        await part.count(60)
        await part.healthy()
        limits = {int(r.query["limit"]) for r in lab.server.requests_of("list", "deployments")}
        assert min(limits) < max(limits) == 200


@pytest.mark.parametrize("openshift", [True, False])
async def test_a_server_without_the_kinds_of_every_cluster_is_no_cluster(
    lab: Lab, openshift: bool
) -> None:
    lab.server.openshift = openshift
    lab.server.fail(Fault(404, plural="deployments", times=10**6))
    async with lab.run(kinds=("Deployment", "DeploymentConfig")) as part:
        await until(lambda: "HTTP 404" in part.part.state().summary)
        assert part.part.state().health is Health.DEGRADED
        assert "is this the API of a cluster" in part.part.state().summary


async def test_where_no_kind_is_served_nothing_is_watched(lab: Lab) -> None:
    lab.server.openshift = False
    async with lab.run(kinds=("DeploymentConfig",)) as part:
        await until(lambda: part.part.state().health is Health.DEGRADED)
        assert "DeploymentConfig in all namespaces" in part.part.state().summary


DEEP = b'{"items": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}"
DEEP_EVENT = b'{"type": "ADDED", "object": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}\n"


async def test_a_list_that_goes_round_in_a_circle_is_a_broken_answer(lab: Lab) -> None:
    page = b'{"metadata": {"resourceVersion": "1", "continue": "again"}, "items": []}'
    lab.server.fail(Fault(page, verb="list", times=10**6))
    async with lab.run() as run:
        await until(lambda: "the list does not end" in run.part.state().summary)


@pytest.mark.parametrize("verb", ["list", "watch"])
async def test_json_that_is_nested_without_end_is_a_broken_answer(lab: Lab, verb: str) -> None:
    play = DeploymentPlay()
    lab.server.fail(Fault(DEEP if verb == "list" else DEEP_EVENT, verb=verb, times=2))  # type: ignore[arg-type]
    async with lab.run() as part:
        await until(lambda: part.part.state().health is Health.DEGRADED)
        assert len(part.part.state().summary.splitlines()) == 1
        await part.healthy()
        lab.play(play.create(V1))
        await part.count(1)


async def test_an_object_that_cannot_be_read_leaves_the_others_working(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = DeploymentPlay("good"), DeploymentPlay("bad")
    lab.play(good.create(V1), bad.create(V1))
    async with lab.run() as part:
        await part.count(2)
        bad.item["status"]["replicas"] = "many"
        lab.play(bad.annotate("a", "b"), good.set_image(V2))
        await part.count(3)
        assert count(caplog, "cannot read bad") == 1
        await part.healthy()
    async with lab.run() as part:
        lab.play(good.set_image(V3))
        await part.count(4)
        # What cannot be read is not gone.
        assert ("bad", "removed", "deleted") not in part.told
