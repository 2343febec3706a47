"""Every key of the config is adopted by a reload, or the log names it as waiting for a restart."""

from __future__ import annotations

import copy
import gc
import inspect
import resource
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
import yaml

from monitor.daemon.config import Config
from tests.daemon.every_key import INHERITED, JOBS, change, config, in_config, keys, rounds
from tests.daemon.in_force import SEEN
from tests.daemon.in_process import Running, running

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
