"""Every key of the config is adopted by a reload, or the log names it as waiting for a restart."""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import resource
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
import yaml
import zmq
from websockets.asyncio.client import connect

from monitor.aggregation.part import Aggregation
from monitor.alerts.part import Alerts
from monitor.daemon import lifecycle
from monitor.daemon.config import Config
from monitor.logs.part import Logs
from monitor.part import Health, Part
from monitor.probes.part import Probes
from monitor.relay.part import Relay
from monitor.tokens import Role, create_token
from monitor.web.part import Web
from tests.daemon.every_key import INHERITED, JOBS, change, config, in_config, keys, rounds
from tests.daemon.in_force import SEEN
from tests.daemon.in_process import Running, running
from tests.ports import free_port
from tests.waiting import until

WAITING = "changed but not applied; restart to apply: "


def named(caplog: pytest.LogCaptureFixture) -> set[str]:
    """Return the keys that the log said to wait for a restart."""
    said = [line.partition(WAITING)[2] for line in caplog.messages if WAITING in line]
    return {key for line in said for key in line.split(", ")}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    for variable in ("LOGS_TIMEWINDOW", "CLEANUP_INTERVAL"):
        monkeypatch.delenv(variable, raising=False)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.integration_test
@pytest.mark.timeout(600)
async def test_every_key_is_adopted_by_a_reload_or_named_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = config(tmp_path)
    wrong: list[str] = []

    async with running(tmp_path, base) as now:
        start = now.daemon.config
        found = keys(msgspec.inspect.type_info(Config))
        for together in rounds(key for key in found if not INHERITED.match(key[0])):
            caplog.clear()
            changed = copy.deepcopy(base)
            for key, kind, _ in together:
                change(changed, start, key, kind, tmp_path)
            await now.reload(changed)
            assert now.daemon.last_reload_successful, (together, caplog.messages[-1])
            waiting = named(caplog)
            expected = {key for key, _, marked in together if not marked}
            if waiting != expected:
                wrong.append(f"the log names {waiting}, and these are not marked: {expected}")
            for key in {key for key, _, marked in together if marked} - waiting:
                wrong += [said async for said in not_adopted(now, key)]
        caplog.clear()
        await now.reload(base)
        assert named(caplog) == set()
        assert now.daemon.config == start
    assert wrong == []


async def not_adopted(now: Running, key: str) -> AsyncIterator[str]:
    """Yield what is wrong with the value in force of a key that is marked."""
    seen = key.replace("/", ".")
    while seen not in SEEN and "." in seen:
        seen = seen.rpartition(".")[0]
    if seen not in SEEN:
        yield f"{key} is marked, and nothing in SEEN shows its value in force"
        return
    in_force = SEEN[seen](now)
    in_force = await in_force if inspect.isawaitable(in_force) else in_force
    expected = in_config(now.daemon.config, seen)
    if in_force != expected:
        yield f"{key} is {in_force} in force, and the config has {expected}"


@pytest.mark.integration_test
async def test_a_daemon_that_runs_keeps_the_settings_and_not_the_file(tmp_path: Path) -> None:
    def nodes() -> int:
        gc.unfreeze()
        gc.collect()
        return sum(isinstance(found, yaml.Node) for found in gc.get_objects())

    before = nodes()
    config = {"relay": False, "logger": {"level": "info"}}
    async with running(tmp_path, config) as now:
        assert nodes() == before
        await now.reload(config)
        assert nodes() == before


@pytest.mark.integration_test
async def test_jobs_that_move_to_the_database_wait_for_a_restart_and_the_rest_is_adopted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    anywhere = ["127.0.0.1", 0]
    base = {
        "websocket_uri": anywhere,
        "zeromq_uri": anywhere,
        "logger": {"file": f"{tmp_path}/monitor.log"},
        "probes": {"jobs": list(JOBS.values())},
    }

    async with running(tmp_path, base) as now:
        await now.reload(
            {
                **base,
                "probes": {"source": "database", "concurrency": 7},
                "relay": {"max_clients": 5},
            }
        )
        assert named(caplog) == {"probes.source", "probes.jobs"}
        assert now.probes.runner.job_ids() == list(range(1, len(JOBS) + 1))
        assert now.probes.runner._slots.limit == 7
        assert now.relay.channels.limits.max_clients == 5


@pytest.mark.integration_test
async def test_every_part_starts_again_after_its_start_has_failed_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def fail_first(kind: type[Part]) -> None:
        start = kind.start

        async def starting(part: Part) -> None:
            await start(part)
            tried.append(part.name)
            if tried.count(part.name) == 1:
                raise RuntimeError("a defect")

        monkeypatch.setattr(kind, "start", starting)

    for kind in (Relay, Probes, Aggregation, Logs, Alerts, Web):
        fail_first(kind)
    monkeypatch.setattr(lifecycle, "_RESTART_PAUSE_S", (0.01, 0.02))
    file, port = tmp_path / "tokens.yml", free_port()
    read = create_token(str(file), "reader", Role.READER)
    made = {
        "websocket_uri": ["127.0.0.1", 0],
        "zeromq_uri": ["127.0.0.1", 0],
        "relay": {"history_file": "histories.db"},
        "logs": {"zeromq_uri": ["127.0.0.1", 0]},
        "api": {"uri": ["127.0.0.1", port], "tokens_file": str(file)},
        **{part: {} for part in ("probes", "aggregation", "alerts")},
    }
    async with running(tmp_path, made) as now:
        supervisors = now.daemon._supervisors
        for each in supervisors:
            each._settled_s = 0.01
        await until(lambda: all(each.started for each in supervisors))
        states = now.daemon.states
        await until(lambda: {state.health for state in states().values()} == {Health.OK})
        assert {tried.count(each.part.name) for each in supervisors} == {2}
        assert [
            len(each) for each in (now.relay.server.addresses, now.relay.receiver.endpoints)
        ] == [1, 1]
        address, (endpoint,) = now.relay.server.addresses[0], now.relay.receiver.endpoints
        async with connect("ws://{}:{}".format(*address)) as subscriber:
            await subscriber.send("7")
            await until(lambda: now.relay.server.client_count == 1)
            with zmq.Context() as context, context.socket(zmq.DEALER) as broker:
                broker.linger = 0
                broker.connect(endpoint)
                broker.send_multipart([b"7", b"STARTED"])
                assert "STARTED" in await asyncio.wait_for(subscriber.recv(), 60)
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/log", headers={"Authorization": f"Bearer {read}"}
        )
        with await asyncio.to_thread(urllib.request.urlopen, request) as answer:
            assert answer.status == 200
