"""The part over restarts, crashes and outages: each change is published once, whatever is down."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
import trustme

from monitor.cluster.journal import Journal
from monitor.cluster.settings import ClusterSettings
from monitor.cluster.tracker import Tracker
from monitor.errors import UnavailableError
from monitor.part import Health
from monitor.store import Connection, DatabaseSettings, Store, open_store
from monitor.store.sqlite import SqliteStore
from monitor.web.routes.models import running_models
from tests.cluster.conftest import Lab, Run, run_part, write_kubeconfig
from tests.cluster.play import digest_of
from tests.cluster.plays import DeploymentPlay, StatefulSetPlay
from tests.servers.kubernetes import KubernetesServer
from tests.store.opened import opened
from tests.waiting import until

pytestmark = pytest.mark.integration_test

T = TypeVar("T")
V1, V2 = "models/churn:1", "models/churn:2"


class SilentServer(NamedTuple):
    """A server that takes connections and never answers."""

    url: str


async def test_a_restart_repeats_nothing_and_tells_what_happened_meanwhile(lab: Lab) -> None:
    kept, changed, removed = (DeploymentPlay(name) for name in ("kept", "changed", "removed"))
    lab.play(kept.create(V1), changed.create(V1), removed.create(V1))
    async with lab.run() as part:
        await part.count(3)
        assert {row[1:] for row in part.told} == {("deployed", "snapshot")}
    lab.play(changed.set_image(V2), removed.delete(), DeploymentPlay("new").create(V1))
    async with lab.run() as part:
        await part.count(6)
        assert sorted(part.told[3:]) == [
            ("changed", "upgraded", "image-changed"),
            ("new", "deployed", "created"),
            ("removed", "removed", "deleted"),
        ]
        assert [event.catch_up for event in part.events] == [False] * 3 + [True] * 3
        (upgrade,) = [event for event in part.events if event.name == "changed"][1:]
        assert upgrade.images[0].before == f"{V1}@{digest_of(V1)}"
        assert upgrade.images[0].after == f"{V2}@{digest_of(V2)}"
    async with lab.run() as part:
        await part.healthy()
        lab.play(kept.set_image(V2))
        await part.count(7)
        assert not part.events[6].catch_up
        assert len(set(part.ids)) == len(part.ids) == 7


async def test_on_postgresql_it_is_the_same(lab: Lab, postgres_url: str) -> None:
    lab.database = DatabaseSettings(url=postgres_url)

    play, gone = DeploymentPlay(), DeploymentPlay("gone")
    lab.play(play.create(V1), gone.create(V1))
    first = play.template
    async with lab.run(kinds=("Deployment", "Pod")) as part:
        await part.healthy()
        await part.count(2)
        lab.play(play.set_image(V2))
        await part.count(2 + 1 + 2)
    lab.play(play.undo(first), gone.delete())
    async with lab.run(kinds=("Deployment", "Pod")) as part:
        await part.healthy()
        await part.count(5 + 2 + 2)
        assert {row for row in part.told[5:] if row[1] != "ready"} == {
            ("churn", "rolledback", "rollback"),
            ("gone", "removed", "deleted"),
        }
        assert len(set(part.ids)) == 9


async def test_what_the_config_no_longer_covers_is_not_shown_and_compared_later(lab: Lab) -> None:
    plays = [DeploymentPlay(namespace="a"), DeploymentPlay(namespace="b"), StatefulSetPlay()]
    for play in plays:
        lab.play(play.create(V1))

    async def shown(run: Run) -> set[tuple[str, str]]:
        await run.healthy()
        items = await run.store.read(lambda connection: running_models(connection, 9))
        return {(item.kind, item.namespace) for item in items}

    everything = {("Deployment", "a"), ("Deployment", "b"), ("StatefulSet", "models")}
    kinds = ("Deployment", "StatefulSet")
    async with lab.run(kinds=kinds) as run:
        assert await shown(run) == everything
    async with lab.run(namespaces=("b",)) as run:
        assert await shown(run) == {("Deployment", "b")}
    lab.play(plays[0].set_image(V2), plays[2].set_image(V2))
    async with lab.run(kinds=kinds) as run:
        assert await shown(run) == everything
        await run.count(5)
        assert [told[1] for told in run.told] == ["deployed"] * 3 + ["upgraded"] * 2


async def test_a_former_name_of_the_cluster_is_not_shown_and_its_events_are_deleted(
    lab: Lab,
) -> None:
    async def shown(run: Run) -> set[str]:
        await run.healthy()
        items = await run.store.read(lambda connection: running_models(connection, 9))
        return {item.cluster for item in items}

    def two_days_later(connection: Connection) -> None:
        past = time.time() - 2 * 86400
        connection.execute("UPDATE model_event SET time = %s", (past,))
        connection.execute(
            "UPDATE cluster_scope SET listed_at = %s WHERE cluster = 'former'", (past,)
        )

    lab.play(DeploymentPlay().create(V1))
    async with lab.run(name="former") as run:
        await run.count(1)
        await until_forwarded(run.store)
    async with lab.run(name="new") as run:
        # The daemon of another cluster may have the same database.
        await run.count(2)
        assert await shown(run) == {"former", "new"}
        await until_forwarded(run.store)
        await run.store.transaction(two_days_later)
        assert await shown(run) == {"new"}
        for cluster in ("third", "new"):
            journal = Journal(
                run.store, run.bus, cluster=cluster, topic="model-updates", clock=time.time
            )
            # Each deletes its own, and what is nobody's any more.
            assert await journal.purge(86400.0) == 1
    async with lab.run(name="former") as run:
        assert await shown(run) == {"former", "new"}


async def test_an_empty_cluster_has_been_seen_too(lab: Lab) -> None:
    async with lab.run() as part:
        await part.healthy()
    lab.play(DeploymentPlay().create(V1))
    async with lab.run() as part:
        await part.count(1)
        assert part.told == [("churn", "deployed", "created")]
        assert part.events[0].catch_up


async def test_a_crash_between_forwarding_and_noting_repeats_an_event_with_its_id(lab: Lab) -> None:
    play = DeploymentPlay()
    lab.play(play.create(V1))
    async with lab.run() as part:
        await part.count(1)
        await until_forwarded(part.store)
        await part.store.transaction(
            lambda connection: connection.execute("UPDATE model_event SET forwarded_at = NULL")
        )
    async with lab.run() as part:
        lab.play(play.set_image(V2))
        await part.count(3)
        assert part.ids[0] == part.ids[1] != part.ids[2]
        assert part.records[0].value == part.records[1].value


async def until_forwarded(store: Store) -> None:
    waiting = 1
    while waiting:
        ((waiting,),) = await store.read(
            lambda connection: connection.query(
                "SELECT count(*) FROM model_event WHERE forwarded_at IS NULL"
            )
        )
        await asyncio.sleep(0.01)


async def test_a_crash_before_forwarding_loses_nothing(lab: Lab) -> None:
    play = DeploymentPlay()
    async with lab.run() as part:
        await part.healthy()
        lab.play(play.create(V1))
        await part.count(1)
    # As if the process had died with the event committed and nothing in the spool.
    store = open_store(DatabaseSettings(file=str(lab.directory / "monitor.db")))
    await store.start()
    await store.transaction(
        lambda connection: connection.execute("UPDATE model_event SET forwarded_at = NULL")
    )
    await store.close()
    for file in lab.directory.glob("spool.db*"):
        file.unlink()
    async with lab.run() as part:
        await part.count(1)
        assert part.told == [("churn", "deployed", "created")]


class UnreliableStore(SqliteStore):
    """A real store whose transactions, while ``failures`` last, fail before or after the commit."""

    failures: Iterator[str] = iter(())

    async def transaction(self, function: Callable[[Connection], T], *, timeout: float = 30.0) -> T:
        how = next(self.failures, "")
        if how == "before":
            raise UnavailableError("database", "connection refused")
        result = await super().transaction(function, timeout=timeout)
        if how == "after":
            raise UnavailableError("database", "no answer in time")
        return result


async def test_a_store_that_is_away_or_in_doubt_loses_and_repeats_nothing(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    store = UnreliableStore(lab.directory / "monitor.db")
    lab.store = lambda inner: store

    await store.start()
    play = DeploymentPlay()
    async with lab.run() as part:
        await part.healthy()
        lab.play(play.create(V1))
        await part.count(1)
        await until_forwarded(store)
        store.failures = iter(["before", "after"])
        lab.play(play.set_image(V2))
        await until(lambda: part.part.state().health is Health.DEGRADED)
        assert "connection refused" in part.part.state().summary
        await part.count(2)
        await part.healthy()
        assert [row[1] for row in part.told] == ["deployed", "upgraded"]
        assert caplog.text.count("connection refused") == 1
    await store.close()


async def test_a_store_that_is_away_does_not_hold_up_the_stop(lab: Lab) -> None:
    store = UnreliableStore(lab.directory / "monitor.db")
    lab.store = lambda inner: store

    await store.start()
    async with lab.run() as part:
        await part.healthy()
        store.failures = itertools.repeat("before")
        lab.play(DeploymentPlay().create(V1))
        await until(lambda: part.part.state().health is Health.DEGRADED)
    assert not [t.name for t in threading.enumerate() if t.name.startswith("watch-")]
    store.failures = iter(())
    # Nothing was committed, so nothing is lost.
    async with lab.run() as part:
        await part.count(1)
    await store.close()


async def test_a_server_that_never_answers_does_not_hold_up_the_stop(lab: Lab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        kubeconfig = lab.directory / "silent"
        host, port = silent.getsockname()
        write_kubeconfig(kubeconfig, SilentServer(f"http://{host}:{port}"))
        section = ClusterSettings(name="test", kubeconfig=str(kubeconfig), kinds=("Deployment",))
        async with opened(lab.database) as store, run_part(section, lab.directory, store) as run:
            peer, _ = await asyncio.to_thread(silent.accept)
            # A request waits much longer for its answer.
            with peer:
                async with asyncio.timeout(20):
                    await run.part.drain()


async def test_a_defect_in_a_watch_ends_the_part(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Tracker, "end_list", defect)

    with pytest.raises(AssertionError, match="a defect"):
        async with lab.run(kinds=("Deployment", "Pod")):
            await until(lambda: not [t for t in asyncio.all_tasks() if t.get_name() == "part"])
    assert not [t.name for t in threading.enumerate() if t.name.startswith("watch-")]


@pytest.fixture
def service_account(tmp_path: Path) -> Iterator[tuple[KubernetesServer, Path]]:
    """Return a TLS server, and the directory that the kubelet would mount into a pod."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    directory = tmp_path / "serviceaccount"
    directory.mkdir()
    authority.cert_pem.write_to_path(str(directory / "ca.crt"))
    (directory / "token").write_text("first-secret-token\n")
    server = KubernetesServer(tls=context)
    server.tokens = {"first-secret-token"}
    yield server, directory
    server.stop()


async def test_in_the_cluster_a_rotated_token_is_read_again(
    service_account: tuple[KubernetesServer, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    server, directory = service_account
    lab = Lab(server, tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))

    play = DeploymentPlay()
    async with lab.run(service_account=directory) as part:
        await part.healthy()
        lab.play(play.create(V1))
        await part.count(1)
        server.tokens = {"second-secret-token"}
        server.break_watches("end")
        await until(lambda: part.part.state().health is Health.DEGRADED)
        assert "401" in part.part.state().summary
        (directory / "token").write_text("second-secret-token")
        await part.healthy()
        lab.play(play.set_image(V2))
        await part.count(2)
        shown = part.part.state().summary + caplog.text
        assert "secret-token" not in shown


async def test_a_server_with_another_certificate_gets_no_token(
    service_account: tuple[KubernetesServer, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, directory = service_account
    lab = Lab(server, tmp_path)
    trustme.CA().cert_pem.write_to_path(str(directory / "ca.crt"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))

    async with lab.run(service_account=directory) as part:
        await until(lambda: part.part.state().health is Health.DEGRADED)
        assert "certificate verify failed" in part.part.state().summary
        assert server.requests == []


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (shutil.rmtree, "Service token file does not exist"),
        (lambda d: (d / "token").write_text(""), "Token file exists but empty"),
        (lambda d: (d / "ca.crt").unlink(), "certification file does not exist"),
    ],
)
async def test_without_credentials_the_part_says_what_it_lacks(
    service_account: tuple[KubernetesServer, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path], Any],
    problem: str,
) -> None:
    server, directory = service_account
    lab = Lab(server, tmp_path)
    spoil(directory)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))

    async with lab.run(service_account=directory) as part:
        await until(lambda: part.part.state().health is Health.DEGRADED)
        assert problem in part.part.state().summary


async def test_a_token_that_cannot_be_sent_is_not_shown(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    async with lab.run(token="top\nsecret\u20ac") as part:
        await until(lambda: part.part.state().health is Health.DEGRADED)
        shown = part.part.state().summary + caplog.text
        assert "invalid characters" in shown
        assert "secret" not in shown


async def test_a_kubeconfig_that_is_none_is_said_in_a_line(lab: Lab, tmp_path: Path) -> None:
    async with lab.run() as part:
        await part.healthy()
        bad = tmp_path / "bad"
        bad.write_text("{: not yaml\n- at all")
        switch = await part.part.prepare(part.part._settings.replace(kubeconfig=str(bad)))
        switch()
        await until(lambda: part.part.state().health is Health.DEGRADED)
        summary = part.part.state().summary
        assert str(bad) in summary
        assert "\n" not in summary


async def test_old_events_are_deleted_once_they_are_forwarded(lab: Lab) -> None:
    for number in range(3):
        lab.play(DeploymentPlay(f"m{number}").create(V1))
    async with lab.run() as part:
        await part.count(3)
        await until_forwarded(part.store)
        await part.store.transaction(
            lambda connection: connection.execute(
                "UPDATE model_event SET forwarded_at = NULL WHERE id = %s", (part.ids[0],)
            )
        )
        told_at = time.time()
        journal = Journal(
            part.store,
            part.bus,
            cluster="test",
            topic="model-updates",
            clock=lambda: told_at + 100.0,
        )
        assert await journal.purge(200.0) == 0
        assert await journal.purge(50.0) == 2


async def test_metrics_count_events_and_ends(lab: Lab) -> None:
    play = DeploymentPlay()
    async with lab.run() as part:
        await part.healthy()
        lab.play(play.create(V1), play.set_image(V2))
        await part.count(2)
        lab.server.break_watches("reset")
        lab.play(play.set_image(V1))
        await part.count(3)
        metrics = {metric.name: dict_of(metric.samples) for metric in part.part.metrics()}
        assert metrics["model_updates_total"] == {
            "dev.cdevents.service.deployed": 1,
            "dev.cdevents.service.upgraded": 1,
            "dev.cdevents.service.rolledback": 1,
        }
        assert metrics["cluster_watch_restarts_total"] == {"broken": 1}


def dict_of(samples: Any) -> dict[str, float]:
    return {next(iter(labels.values())): value for labels, value in samples}
