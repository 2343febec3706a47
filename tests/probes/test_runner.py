"""Runs on their grid, over real sockets: spread, retried, bounded, reloaded, drained."""

from __future__ import annotations

import asyncio
import re
import resource
import socket
import time
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trustme

from monitor import yielding
from monitor.bus import Bus, BusSettings, create_bus
from monitor.errors import SettingError
from monitor.messages import Result
from monitor.part import Health
from monitor.probes.checks import read_job
from monitor.probes.checks.http import HttpJob
from monitor.probes.checks.tcp import TcpJob
from monitor.probes.job import Job
from monitor.probes.network import Network
from monitor.probes.runner import Runner
from monitor.probes.settings import ProbesSettings
from tests.probes.misbehaving import Misbehaving
from tests.probes.running import jobs, running
from tests.waiting import until

pytestmark = [pytest.mark.integration_test, pytest.mark.usefixtures("bus_directory")]


async def test_every_job_gives_one_result_a_time_on_its_grid(server: Misbehaving) -> None:
    async with running(ProbesSettings(jobs=jobs(40, server.url("/ok")), id=1)) as probes:
        await probes.more(lambda results: len(results) >= 200)
        names = [(result.job_id, result.scheduled_at) for result in probes.results]
        assert len(set(names)) == len(names)
        assert {result.job_id for result in probes.results} == set(range(1, 41))
        for job_id in range(1, 41):
            mine = [result for result in probes.results if result.job_id == job_id]
            for one, two in pairwise(mine):
                step = two.scheduled_at - one.scheduled_at
                assert step == pytest.approx(0.5 * (1 + two.missed), abs=0.002)
        assert all(result.checked_at >= result.scheduled_at for result in probes.results)
        assert {result.producer for result in probes.results} == {1}


class Jumping:
    """A runner with a clock of its own, and what it has found."""

    def __init__(self, bus: Bus) -> None:
        self.later_s = 0.0
        self.results: list[Result] = []
        self.most_open = 0
        self._running: asyncio.Task[None] | None = None
        self.runner = Runner(
            bus, topic="results", concurrency=500, on_result=self._take, clock=self._now
        )

    async def set_jobs(self, jobs: Sequence[Job]) -> None:
        self.runner.set_jobs(await self.runner.prepare(jobs))

    def start(self) -> None:
        self._running = asyncio.create_task(self.runner.run())

    async def close(self) -> None:
        assert self._running is not None
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await self.runner.close()

    def _now(self) -> float:
        return time.time() + self.later_s

    def _take(self, result: Result) -> None:
        self.results.append(result)
        found = re.search(r"(\d+) open", self.runner.summary())
        assert found
        self.most_open = max(self.most_open, int(found[1]))


@pytest.fixture
async def jumping() -> AsyncIterator[Jumping]:
    bus = create_bus(BusSettings())
    await bus.start()
    jumping = Jumping(bus)
    yield jumping
    await jumping.close()
    await bus.close()


async def test_what_was_due_while_the_daemon_started_is_neither_late_nor_missed(
    server: Misbehaving, jumping: Jumping
) -> None:
    await jumping.set_jobs(jobs(50, server.url("/ok"), interval=5))
    jumping.later_s = 10.0
    jumping.start()
    await until(lambda: jumping.results)
    assert jumping.results[0].missed == 0


async def test_while_the_loop_is_behind_few_checks_are_open(
    jumping: Jumping, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Stands for events that the loop has no time for: how many there are depends on the machine.
    monkeypatch.setattr(Network, "behind", True)
    monkeypatch.setattr("monitor.probes.runner._PATIENCE_S", 3600.0)
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        await jumping.set_jobs(jobs(40, url, interval=10, timeout=600))
        jumping.start()
        jumping.later_s = 10.0
        await until(lambda: ", 16 open, 24 waiting" in jumping.runner.summary())
        for _ in range(100):
            await asyncio.sleep(0)
        assert ", 16 open, 24 waiting" in jumping.runner.summary()
        monkeypatch.setattr(Network, "behind", False)
        await until(lambda: ", 40 open" in jumping.runner.summary())


async def test_the_loop_is_behind_while_events_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    network, one, other = Network(resolver_threads=1), object(), object()
    monkeypatch.setattr("monitor.probes.network._NOTED_S", 3600.0)
    network.note(one, behind=True)
    network.note(other, behind=True)
    network.note(one, behind=False)
    found = [network.behind]
    monkeypatch.setattr("monitor.probes.network._NOTED_S", 0.0)
    found.append(network.behind)
    network.close()
    assert found == [True, False]


async def test_runs_that_are_late_are_not_all_open_at_once(jumping: Jumping) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener:
        url = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        late = [TcpJob(id=i, url=url, interval=10) for i in range(1, 1001)]
        await jumping.set_jobs(late)
        jumping.start()
        await until(lambda: jumping.results)
        # All of a second come due at once: about a hundred.
        jumping.later_s = 0.9
        before = len(jumping.results)
        await until(lambda: len(jumping.results) > before + 60)
    assert jumping.most_open < 32


async def test_retries_come_before_down_and_the_result_says_which_attempt(
    server: Misbehaving,
) -> None:
    before = sum(b"/status/500" in request for request in server.requests)
    down = HttpJob(id=1, url=server.url("/status/500"), interval=1, retries=2)
    async with running(ProbesSettings(jobs=[down])) as probes:
        await probes.more(lambda results: results)
        assert (probes.results[0].up, probes.results[0].attempt) == (False, 3)
        assert sum(b"/status/500" in request for request in server.requests) - before >= 3


async def test_a_job_never_overlaps_itself_and_says_what_it_missed(server: Misbehaving) -> None:
    slow = HttpJob(id=1, url=server.url("/silent"), interval=0.2, timeout=0.5)
    async with running(ProbesSettings(jobs=[slow])) as probes:
        await probes.more(lambda results: len(results) >= 3)
        one, two, three = probes.results[:3]
        assert one.checked_at + one.duration <= two.checked_at + 0.01
        assert two.checked_at + two.duration <= three.checked_at + 0.01
        assert two.missed >= 2
        assert two.scheduled_at - one.scheduled_at == pytest.approx(0.2 * (1 + two.missed))


async def test_a_job_that_cannot_be_prepared_is_left_out_and_the_others_keep_running(
    server: Misbehaving, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(authority))
    good = jobs(1, server.url("/ok"))
    keys = {"id": 2, "name": "live", "kind": "tls", "url": "tls://127.0.0.1:1"}
    bad = read_job({**keys, "ca_file": str(authority)})
    caplog.set_level("INFO", "monitor.probes")
    async with running(ProbesSettings(jobs=good)) as probes:
        settings = ProbesSettings(jobs=[*good, bad])
        settings.verify()
        authority.unlink()
        (await probes.part.prepare(settings))()
        line = "job 2 (live): cannot prepare its check: FileNotFoundError"
        assert caplog.messages.count(f"job left out: {line}") == 1
        assert "checking 1 of 2 jobs" in caplog.messages
        state = probes.part.state()
        assert (state.health, "1 job left out" in state.summary) == (Health.DEGRADED, True)
        await probes.more(lambda results: results)


async def test_many_jobs_are_prepared_over_many_turns_of_the_loop(
    server: Misbehaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yielding, "_PIECE_S", 0.0)
    async with running(ProbesSettings(jobs=jobs(1, server.url("/ok")))) as probes:
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        turning = asyncio.create_task(turn())
        await probes.reload(ProbesSettings(jobs=jobs(300, server.url("/ok"), interval=60)))
        turning.cancel()
        # As new ones, and to find out which are new.
        assert turns >= 600
        assert probes.part.runner is not None
        assert len(probes.part.runner.job_ids()) == 300


async def test_thousands_of_jobs_are_scheduled_and_forgotten_over_many_turns_of_the_loop(
    server: Misbehaving, jumping: Jumping
) -> None:
    def scheduled() -> int:
        found = [runner.job_status(each).next_run for each in runner.job_ids()]
        return len([each for each in found if each is not None])

    runner = jumping.runner
    gone: list[int] = []
    runner._on_gone = gone.append
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, error: errors.append(error))
    many = jobs(2000, server.url("/ok"), interval=3600)
    await jumping.set_jobs(many)
    jumping.start()
    assert 0 < scheduled() < 250
    # They are stopped and set again before the end.
    assert runner.stop_job(1)
    assert runner.stop_job(2000)
    kept = many[1000:]
    await jumping.set_jobs(kept)
    assert len(gone) < 250
    await until(lambda: scheduled() == 999)
    assert sorted(gone) == [*range(1, 1001)]
    assert runner.job_status(2000).next_run is None
    assert runner.stopped == {2000}
    assert runner.start_job(2000)
    assert scheduled() == 1000
    assert errors == []


async def test_sites_that_hang_do_not_keep_the_others_from_being_checked(
    server: Misbehaving,
) -> None:
    hanging = [
        HttpJob(id=i, url=server.url("/silent"), interval=2, timeout=1.5) for i in range(1, 21)
    ]
    good = [HttpJob(id=i, url=server.url("/ok"), interval=1) for i in range(21, 31)]
    settings = ProbesSettings(jobs=[*hanging, *good], concurrency=8)
    async with running(settings) as probes:
        # once each has been slow, half of the slots are free for those that answer
        def on_time(results: list[Result]) -> bool:
            good = [result for result in results if result.job_id > 20]
            assert all(result.up for result in good)
            return len(good) >= 60 and sum(result.missed for result in good[-20:]) <= 2

        await probes.more(on_time)


async def test_a_reload_adds_removes_and_keeps_and_a_bad_one_changes_nothing(
    server: Misbehaving,
) -> None:
    first = ProbesSettings(jobs=jobs(3, server.url("/ok")))
    async with running(first) as probes:
        await probes.more(lambda results: len({r.job_id for r in results}) == 3)
        grid = {r.job_id: r.scheduled_at % 0.5 for r in probes.results}
        beyond = first.replace(id=9)
        with pytest.raises(SettingError, match=r"^id: there is no range 9: 3 active"):
            await probes.reload(beyond)
        changed = [
            *jobs(2, server.url("/ok")),
            HttpJob(id=7, url=server.url("/ok"), interval=0.5),
        ]
        await probes.reload(ProbesSettings(jobs=changed))
        probes.results.clear()
        await probes.more(lambda results: {1, 2, 7} <= {r.job_id for r in results[-6:]})
        for result in probes.results:
            if result.job_id in (1, 2):
                assert result.scheduled_at % 0.5 == pytest.approx(grid[result.job_id], abs=2e-3)
        assert probes.part.runner is not None
        assert probes.part.runner.job_ids() == [1, 2, 7]


async def test_a_stopped_job_is_not_run_until_it_is_started(server: Misbehaving) -> None:
    async with running(ProbesSettings(jobs=jobs(2, server.url("/ok")))) as probes:
        runner = probes.part.runner
        assert runner is not None
        assert runner.stop_job(1)
        assert not runner.stop_job(1)
        with pytest.raises(KeyError):
            runner.stop_job(3)
        assert not runner.job_status(1).running
        await probes.more(lambda results: sum(r.job_id == 2 for r in results) >= 4)
        assert sum(r.job_id == 1 for r in probes.results) <= 1
        assert runner.start_job(1)
        assert not runner.start_job(1)
        probes.results.clear()
        await probes.more(lambda results: any(r.job_id == 1 for r in results))
        assert runner.job_status(1).last is not None


async def test_a_job_is_checked_at_once_when_its_question_changes_or_it_is_started(
    server: Misbehaving,
) -> None:
    others = jobs(1, server.url("/ok"))
    job: dict[str, Any] = {"id": 5, "url": server.url("/ok"), "interval": 7 * 86400.0}
    async with running(ProbesSettings(jobs=others)) as probes:
        for keys, error in (
            ({}, None),
            ({"body_regexp": "nowhere"}, "body-mismatch: body_regexp does not match"),
            ({"expected_status": [404]}, "bad-status: 200"),
            ({"headers": {"X-A": "1"}, "name": "new"}, None),
        ):
            probes.results.clear()
            await probes.reload(ProbesSettings(jobs=[*others, HttpJob(**job, **keys)]))
            await probes.more(lambda results: any(r.job_id == 5 for r in results))
            assert [r.error for r in probes.results if r.job_id == 5] == [error]
        probes.results.clear()
        renamed = HttpJob(**{**job, "interval": 86400.0}, headers={"X-A": "1"}, tags=["a"])
        await probes.reload(ProbesSettings(jobs=[*others, renamed]))
        runner = probes.part.runner
        assert runner is not None
        await probes.more(lambda results: len(results) >= 3)
        assert not [r for r in probes.results if r.job_id == 5]
        assert runner.stop_job(5)
        assert runner.start_job(5)
        await probes.more(lambda results: any(r.job_id == 5 for r in results))


async def test_a_job_that_changes_while_it_is_checked_is_checked_again_right_after(
    server: Misbehaving,
) -> None:
    job: dict[str, Any] = {"id": 5, "interval": 7 * 86400.0, "timeout": 2}
    async with running(ProbesSettings(jobs=[])) as probes:
        before = len(server.requests)
        await probes.reload(ProbesSettings(jobs=[HttpJob(**job, url=server.url("/silent"))]))
        await until(lambda: len(server.requests) > before)
        await probes.reload(ProbesSettings(jobs=[HttpJob(**job, url=server.url("/ok"))]))
        await probes.more(lambda results: any(r.up for r in results))
        assert [r.url for r in probes.results] == [server.url("/silent"), server.url("/ok")]
        assert [r.missed for r in probes.results] == [0, 0]


async def test_draining_finishes_what_is_under_way_and_cuts_off_what_hangs(
    server: Misbehaving,
) -> None:
    settings = ProbesSettings(
        jobs=[HttpJob(id=1, url=server.url("/silent"), interval=0.2, timeout=60)]
    )
    async with running(settings) as probes:
        before = len(server.requests)
        await until(lambda: len(server.requests) > before)
        assert probes.part.state().summary.startswith("1 job, 1 open")
    assert probes.results == []


async def test_metrics_count_results_lag_and_what_was_missed(server: Misbehaving) -> None:
    one_up = HttpJob(id=1, url=server.url("/ok"), interval=0.2)
    one_down = HttpJob(id=2, url=server.url("/status/500"), interval=0.2)
    async with running(ProbesSettings(jobs=[one_up, one_down])) as probes:
        await probes.more(lambda results: {r.job_id for r in results} == {1, 2})
        metrics = {metric.name: metric for metric in probes.part.metrics()}
        counts = {labels["up"]: count for labels, count in metrics["probe_results_total"].samples}
        assert counts["true"] >= 1
        assert counts["false"] >= 1
        for name in ("probe_duration_seconds", "probe_lag_seconds"):
            samples = metrics[name].samples
            buckets = [count for labels, count in samples if "le" in labels]
            total = next(n for labels, n in samples if labels.get("__suffix__") == "_count")
            assert buckets == sorted(buckets)
            assert buckets[-1] == total >= 2
        assert metrics["probe_missed_total"].samples[0][1] >= 0


async def test_a_part_that_lacks_descriptors_is_degraded_until_checks_are_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("monitor.probes.runner._WANTING_S", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        job = read_job({"id": 1, "kind": "tcp", "url": url, "interval": 0.5})
        async with running(ProbesSettings(jobs=[job])) as run:
            await run.more(lambda results: results)
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            try:
                await until(lambda: run.part.state().health is Health.DEGRADED)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            await until(lambda: run.part.state().health is Health.OK)
            await run.more(lambda results: results[-1].missed)
            assert all(result.up for result in run.results)
