"""What is published of rollouts that the real controllers make, with the rights of the manifest."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from monitor.cluster.settings import ClusterSettings
from monitor.messages import ModelEvent
from monitor.store import DatabaseSettings
from tests.cluster.conftest import Run, run_part
from tests.cluster.play import digest_of
from tests.cluster.test_changes import DEPLOYED, FAILED, REMOVED, ROLLED_BACK, UPGRADED
from tests.cluster_real.servers import Api
from tests.cluster_real.workloads import Deployment, Namespace
from tests.store.opened import opened
from tests.waiting import until

pytestmark = [pytest.mark.integration_test, pytest.mark.timeout(600)]

V1, V2, BROKEN = "registry:5000/models/churn:1", "registry:5000/models/churn:2", "models/broken:1"

Story = Callable[[Namespace, str], None]


def created(models: Namespace, name: str, image: str = V1, **more: Any) -> Deployment:
    made = models.deployment(name, image, **more)
    made.stands()
    return made


def upgraded(models: Namespace, name: str) -> Deployment:
    made = created(models, name)
    made.set_image(V2)
    made.stands()
    return made


def rolled_back(models: Namespace, name: str) -> None:
    made = created(models, name)
    first = made.template
    made.set_image(V2)
    made.stands()
    made.undo(first)
    made.stands()


def failed_and_rolled_back(models: Namespace, name: str) -> None:
    made = created(models, name, deadline_s=2)
    first = made.template
    made.set_image(BROKEN)
    made.failed()
    made.give_time()
    made.undo(first)
    made.stands()


def failed_and_fixed(models: Namespace, name: str) -> None:
    made = created(models, name, deadline_s=2)
    made.set_image(BROKEN)
    made.failed()
    made.give_time()
    made.set_image(V2)
    made.stands()


def failed_from_the_first(models: Namespace, name: str) -> None:
    models.deployment(name, BROKEN, deadline_s=2).failed()


def failed_twice_by_the_same_image(models: Namespace, name: str) -> None:
    made = created(models, name)
    first = made.template
    for _ in range(2):
        made.give_time(2)
        made.set_image(BROKEN)
        made.failed()
        made.give_time()
        made.undo(first)
        made.stands()


def another_image_before_the_first_is_rolled_out(models: Namespace, name: str) -> None:
    made = created(models, name)
    made.set_image(BROKEN)
    made.set_image(V2)
    made.stands()


def changed_while_it_pauses(models: Namespace, name: str) -> None:
    made = created(models, name)
    made.pause()
    made.set_image(BROKEN)
    made.set_image(V2)
    made.pause(paused=False)
    made.stands()


def deleted_and_made_again(models: Namespace, name: str) -> None:
    made = created(models, name)
    made.delete()
    made.gone()
    created(models, name)


def out_of_sight_for_a_while(models: Namespace, name: str) -> None:
    made = created(models, name)
    made.set_component("other")
    made.set_component("model")


def removed(models: Namespace, name: str) -> None:
    created(models, name).delete()


def scaled(models: Namespace, name: str) -> None:
    made = created(models, name)
    for replicas in (4, 0, 1):
        made.scale(replicas)
        made.stands()


def other_settings(models: Namespace, name: str) -> None:
    made = created(models, name)
    made.set_environment("8")
    made.stands()
    made.annotate("a", "b")
    made.restart()
    made.stands()


def another_version_by_its_label(models: Namespace, name: str) -> None:
    made = created(models, name, labels={"app.kubernetes.io/version": "1"})
    made.set_version("2")
    made.stands()


STORIES: list[tuple[Callable[[Namespace, str], object], list[tuple[str, str]]]] = [
    (created, [DEPLOYED]),
    (upgraded, [DEPLOYED, UPGRADED]),
    (rolled_back, [DEPLOYED, UPGRADED, ROLLED_BACK]),
    (failed_and_rolled_back, [DEPLOYED, FAILED, ROLLED_BACK]),
    (failed_and_fixed, [DEPLOYED, FAILED, UPGRADED]),
    (failed_from_the_first, [FAILED]),
    (failed_twice_by_the_same_image, [DEPLOYED, *(FAILED, ROLLED_BACK) * 2]),
    (another_image_before_the_first_is_rolled_out, [DEPLOYED, UPGRADED]),
    (changed_while_it_pauses, [DEPLOYED, UPGRADED]),
    (removed, [DEPLOYED, REMOVED]),
    (deleted_and_made_again, [DEPLOYED, REMOVED, DEPLOYED]),
    (out_of_sight_for_a_while, [DEPLOYED, REMOVED, DEPLOYED]),
    (scaled, [DEPLOYED]),
    (other_settings, [DEPLOYED]),
    (another_version_by_its_label, [DEPLOYED, ("upgraded", "version-changed")]),
]


@contextlib.asynccontextmanager
async def running(models: Namespace, directory: Path, **settings: Any) -> AsyncIterator[Run]:
    section = ClusterSettings(
        name="test",
        kubeconfig=str(models.kubeconfig),
        **{"kinds": ("Deployment",), "namespaces": (models.name,), **settings},
    )
    async with (
        opened(DatabaseSettings(file=str(directory / "monitor.db"))) as store,
        run_part(section, directory, store) as run,
    ):
        yield run


def of(run: Run, name: str) -> list[tuple[str, str]]:
    """Return what was published of a Deployment."""
    return [(kind, cause) for told, kind, cause in run.told if told == name]


async def told_of(run: Run, expected: dict[str, list[tuple[str, str]]]) -> None:
    """Wait for as many events, and compare each Deployment's."""
    await run.count(sum(map(len, expected.values())))
    assert {name: of(run, name) for name in expected} == expected


async def test_each_story_is_told_as_it_happens_and_nothing_else(
    models: Namespace, tmp_path: Path
) -> None:
    async with running(models, tmp_path) as run:
        await run.healthy()
        names = [story.__name__.replace("_", "-") for story, _ in STORIES]
        await asyncio.gather(
            *(
                asyncio.to_thread(story, models, name)
                for (story, _), name in zip(STORIES, names, strict=True)
            )
        )
        expected = {name: told for name, (_, told) in zip(names, STORIES, strict=True)}
        await told_of(run, expected)
        event = upgrade_of(run, "upgraded")
        assert (event.previous_version, event.version) == ("1", "2")
        (image,) = event.images
        assert image.before == f"{V1}@{digest_of(V1)}"
        assert image.after == f"{V2}@{digest_of(V2)}"
        # Nothing more comes of the end of it all.
        await asyncio.to_thread(created, models, "last")
        await told_of(run, {**expected, "last": [DEPLOYED]})


def upgrade_of(run: Run, name: str) -> ModelEvent:
    (found,) = [
        event
        for event, (told, kind, _) in zip(run.events, run.told, strict=True)
        if (told, kind) == (name, "upgraded")
    ]
    return found


async def test_an_api_server_that_is_killed_loses_and_doubles_nothing(
    api: Api, models: Namespace, tmp_path: Path
) -> None:
    async with running(models, tmp_path, kinds=("Deployment", "Pod")) as run:
        await run.healthy()
        made = await asyncio.to_thread(created, models, "churn")
        await run.count(2)
        for image, sent in ((V2, signal.SIGKILL), (V1, signal.SIGTERM)):
            made.set_image(image)
            await asyncio.to_thread(api.stop_api, sent)
            await until(lambda: run.part.state().health.name != "OK")
            await asyncio.to_thread(api.start_api)
            await asyncio.to_thread(made.stands)
            await run.healthy()
        await asyncio.to_thread(created, models, "last")
        await until(lambda: of(run, "last") != [])
        assert of(run, "churn")[0] == DEPLOYED
        assert of(run, "churn")[1:] == [UPGRADED, ROLLED_BACK]
        assert len(set(run.ids)) == len(run.ids)


async def test_what_happens_while_it_is_away_is_told_when_it_is_back(
    models: Namespace, tmp_path: Path
) -> None:
    async with running(models, tmp_path) as run:
        await run.healthy()
        made = await asyncio.to_thread(created, models, "churn")
        gone = await asyncio.to_thread(created, models, "gone")
        await run.count(2)
    made.set_image(V2)
    gone.delete()
    await asyncio.to_thread(made.stands)
    async with running(models, tmp_path) as run:
        await run.healthy()
        await until(lambda: len(run.told) >= 4)
        assert of(run, "churn") == [DEPLOYED, UPGRADED]
        assert of(run, "gone") == [DEPLOYED, REMOVED]
        assert upgrade_of(run, "churn").catch_up


async def test_a_thousand_deployments_come_in_pages(models: Namespace, tmp_path: Path) -> None:
    names = [f"model-{number:04}" for number in range(1000)]

    for name in names:
        await asyncio.to_thread(models.deployment, name, V1, replicas=0)
    async with running(models, tmp_path) as run:
        await run.healthy()
        assert run.part.state().summary.startswith("1000 objects"), run.part.state()
        await asyncio.to_thread(created, models, "one-more")
        await until(lambda: of(run, "one-more") == [DEPLOYED])


async def test_without_the_rights_it_says_so_and_goes_on_once_it_has_them(
    api: Api, models: Namespace, tmp_path: Path
) -> None:
    bindings = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{models.name}/rolebindings"
    binding = api.call("GET", f"{bindings}/recodex-monitor-cluster")
    api.call("DELETE", f"{bindings}/recodex-monitor-cluster")

    async with running(models, tmp_path) as run:
        await until(lambda: "forbidden" in run.part.state().summary)
        kept = {key: binding[key] for key in ("apiVersion", "kind", "roleRef", "subjects")}
        metadata = {"name": "recodex-monitor-cluster", "namespace": models.name}
        api.apply([{**kept, "metadata": metadata}])
        await run.healthy()
        await asyncio.to_thread(created, models, "churn")
        await told_of(run, {"churn": [DEPLOYED]})
