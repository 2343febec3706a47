"""What the daemon does with parts that fail, over a part made to fail."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import pytest

from monitor.daemon import assembly, opening
from monitor.daemon import lifecycle as daemon_module
from monitor.daemon.assembly import Services
from monitor.daemon.config import load
from monitor.daemon.interpreter import new_event_loop
from monitor.daemon.lifecycle import Daemon
from monitor.daemon.logfile import DaemonLog, LoggerSettings
from monitor.daemon.steps import run_to_end
from monitor.errors import DefectError, MonitorError, SettingError, UnavailableError
from monitor.metrics import Metric
from monitor.part import Health, Part, State
from monitor.sqlite.file import OpenFile
from tests.waiting import until


class Fragile(Part):
    """A part that fails on request, and notes its calls."""

    name = "relay"

    def __init__(self) -> None:
        self.done: list[str] = []
        self.failures: list[BaseException] = []
        self.at_run: Callable[[], None] = lambda: None
        self.refuse_start: BaseException | None = None
        self.slow_start: asyncio.Event | None = None
        self.slow_prepare = False
        self.slow_drain = False
        self.broken_state: BaseException | None = None
        self.broken_prepare: BaseException | None = None
        self.broken_end: BaseException | None = None

    async def prepare(self, settings: object) -> Callable[[], None]:
        del settings
        if self.broken_prepare is not None:
            raise self.broken_prepare
        if self.slow_prepare:
            await asyncio.Event().wait()
        return lambda: None

    async def start(self) -> None:
        self.done.append("start")
        if self.slow_start is not None:
            await self.slow_start.wait()
        refused, self.refuse_start = self.refuse_start, None
        if refused is not None:
            raise refused

    async def run(self) -> None:
        self.done.append("run")
        self.at_run()
        if self.failures:
            raise self.failures.pop(0)
        await asyncio.Event().wait()

    async def drain(self) -> None:
        self.done.append("drain")
        if self.broken_end is not None:
            raise self.broken_end
        if self.slow_drain:
            await asyncio.Event().wait()

    async def close(self) -> None:
        self.done.append("close")
        if self.broken_end is not None:
            raise self.broken_end

    def state(self) -> State:
        if self.broken_state is not None:
            raise self.broken_state
        return State(Health.OK, "fine")

    def metrics(self) -> Iterable[Metric]:
        if self.broken_state is not None:
            raise self.broken_state
        return ()


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Fragile:
    made = Fragile()

    def make(services: Services) -> Part:
        del services
        return made

    monkeypatch.setattr(assembly, "PARTS", (make,))
    monkeypatch.setattr(daemon_module, "_RESTART_PAUSE_S", (0.01, 0.02))
    monkeypatch.setattr(daemon_module, "_DRAIN_S", 0.05)
    monkeypatch.setattr(daemon_module, "_HEARTBEAT_S", 0.01)
    return made


@contextlib.asynccontextmanager
async def running(tmp_path: Path) -> AsyncIterator[tuple[Daemon, asyncio.Task[int]]]:
    """Run a daemon of that part alone; its task has the exit status."""
    log = DaemonLog(LoggerSettings(file=str(tmp_path / "log")))
    daemon = Daemon(None, load(None), log)
    task = asyncio.create_task(daemon.run())
    try:
        yield daemon, task
    finally:
        task.cancel()
        await asyncio.wait({task})


def stop(daemon: Daemon) -> None:
    daemon._services.stop("the test is over")


async def test_a_part_that_fails_is_said_and_run_again(
    part: Fragile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    part.failures = [UnavailableError("a server", "is down"), RuntimeError("a defect")]

    with caplog.at_level(logging.INFO, logger="monitor"):
        async with running(tmp_path) as (daemon, task):
            await until(lambda: daemon.ready)
            (supervisor,) = daemon._supervisors
            supervisor._settled_s = 0.01
            await until(lambda: part.done.count("run") == 3)
            await until(lambda: daemon.states()["relay"].health is Health.OK)
            stop(daemon)
            assert await task == 0
    said = caplog.text
    assert "relay a server: is down; restarting it in" in said
    assert "relay failed: RuntimeError; restarting it in" in said
    assert part.done[-2:] == ["drain", "close"]


async def test_a_failed_part_is_degraded_until_it_runs_again(
    part: Fragile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "_RESTART_PAUSE_S", (60, 60))
    part.failures = [UnavailableError("a server", "is down")]

    async with running(tmp_path) as (daemon, task):
        await until(lambda: daemon.ready and daemon.states()["relay"].health is Health.DEGRADED)
        assert daemon.status_text() == "relay degraded: a server: is down"
        stop(daemon)
        assert await task == 0


async def test_a_drain_that_hangs_does_not_hold_the_end(
    part: Fragile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    part.slow_drain = True

    async with running(tmp_path) as (daemon, task):
        await until(lambda: daemon.ready)
        stop(daemon)
        assert await task == 0
    assert "draining relay took longer than" in caplog.text
    assert part.done[-1] == "close"


async def test_a_setting_that_only_start_finds_wrong_is_a_bad_config(
    part: Fragile, tmp_path: Path
) -> None:
    part.refuse_start = SettingError(("keep_idle",), "is wrong after all")

    async with running(tmp_path) as (_, task):
        with pytest.raises(MonitorError) as caught:
            await task
    assert caught.value.exit_status == 78
    assert str(caught.value) == "defaults: relay.keep_idle: is wrong after all"
    assert part.done == ["start", "close"]


async def test_a_heartbeat_that_ends_ends_the_daemon(
    part: Fragile,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del part
    async with running(tmp_path) as (daemon, task):
        await until(lambda: daemon.ready)
        with monkeypatch.context() as broken:
            broken.setattr(daemon, "status_text", lambda: 1 / 0)
            await until(lambda: daemon.draining)
        assert await task == 1
    assert "the task heartbeat ended" in caplog.text


@pytest.mark.parametrize("failure", [RuntimeError, SystemExit, asyncio.CancelledError])
async def test_a_state_or_metrics_that_fail_are_the_parts_own_trouble(
    part: Fragile,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    failure: type[BaseException],
) -> None:
    async with running(tmp_path) as (daemon, task):
        await until(lambda: daemon.ready)
        part.broken_state = failure("a defect")
        state = daemon.states()["relay"]
        assert state == State(Health.DEGRADED, f"its state is unknown: {failure.__name__}")
        daemon.states()
        assert "part_restarts_total" in {metric.name for metric in daemon.metrics()}
        await until(lambda: "relay: no metrics" in caplog.text)
        part.broken_state = None
        assert daemon.states()["relay"].health is Health.OK
        stop(daemon)
        assert await task == 0


class OddError(BaseException):
    """What only a library of its own mind raises."""


@pytest.mark.parametrize(
    "failure",
    [
        asyncio.CancelledError(),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        OddError(),
        RecursionError(),
        BaseExceptionGroup("several", [OddError()]),
        StopAsyncIteration(),
    ],
    ids=repr,
)
async def test_a_part_is_run_again_whatever_it_raises_and_not_ok_until_it_works(
    part: Fragile,
    tmp_path: Path,
    failure: BaseException,
) -> None:
    part.failures = [failure] * 3
    shown: list[Health] = []
    async with running(tmp_path) as (daemon, task):
        part.at_run = lambda: shown.append(daemon.states()["relay"].health)
        await until(lambda: bool(daemon._supervisors))
        (supervisor,) = daemon._supervisors
        supervisor._settled_s = 0.3
        await until(lambda: part.done.count("run") == 4)
        # It ran again, and had not shown yet that it works.
        assert shown[-1] is Health.DEGRADED
        await until(lambda: daemon.states()["relay"].health is Health.OK)
        assert supervisor.restarts == 3
        stop(daemon)
        assert await task == 0


async def test_a_part_that_fails_again_and_again_is_never_ok(part: Fragile, tmp_path: Path) -> None:
    part.failures = [RuntimeError("a defect") for _ in range(10_000)]
    async with running(tmp_path) as (daemon, task):
        await until(lambda: part.done.count("run") >= 2)
        seen = set()
        count = part.done.count("run")
        while part.done.count("run") < count + 10:
            seen.add(daemon.states()["relay"].health)
            await asyncio.sleep(0)
        assert seen == {Health.DEGRADED}
        stop(daemon)
        assert await task == 0


@pytest.mark.parametrize(
    "failure",
    [ZeroDivisionError(), asyncio.CancelledError(), SystemExit(3), KeyboardInterrupt(), OddError()],
    ids=repr,
)
async def test_a_reload_or_a_close_that_fails_in_any_way_changes_nothing_else(
    part: Fragile, tmp_path: Path, caplog: pytest.LogCaptureFixture, failure: BaseException
) -> None:
    async with running(tmp_path) as (daemon, task):
        await until(lambda: daemon.ready)
        part.broken_prepare = failure
        daemon.ask_to_reload()
        await until(lambda: f"reload failed: {type(failure).__name__}" in caplog.text)
        assert not daemon.last_reload_successful
        part.broken_prepare = None
        daemon.ask_to_reload()
        await until(lambda: daemon.last_reload_successful)
        part.broken_end = failure
        stop(daemon)
        assert await task == 0
    assert part.done[-1] == "close"


@pytest.mark.parametrize(
    "failure",
    [ZeroDivisionError(), SystemExit(3), asyncio.CancelledError(), OddError(), OSError(24, "many")],
    ids=repr,
)
async def test_a_start_that_fails_oddly_is_tried_again_after_the_others_have_started(
    part: Fragile, tmp_path: Path, caplog: pytest.LogCaptureFixture, failure: BaseException
) -> None:
    part.refuse_start = failure
    async with running(tmp_path) as (daemon, task):
        await until(lambda: daemon.ready)
        assert daemon.states()["relay"].health is Health.DEGRADED
        (supervisor,) = daemon._supervisors
        supervisor._settled_s = 0.01
        daemon.ask_to_reload()
        await until(lambda: daemon.states()["relay"].health is Health.OK)
        stop(daemon)
        assert await task == 0
    assert part.done == ["start", "close", "start", "run", "drain", "close"]
    assert f"relay failed: {type(failure).__name__}; restarting it in" in caplog.text


@pytest.mark.parametrize("ends", [True, False])
async def test_a_start_that_hangs_holds_up_neither_the_others_nor_the_end(
    part: Fragile,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    ends: bool,
) -> None:
    monkeypatch.setattr(daemon_module, "_START_PARTS_S", 0.01)
    monkeypatch.setattr(daemon_module, "_LEAST_START_S", 0.01)
    part.slow_start = asyncio.Event()
    async with running(tmp_path) as (daemon, task):
        await until(lambda: daemon.ready)
        assert daemon.status_text() == "relay degraded: not started within 0.01 s"
        daemon.ask_to_reload()
        await until(lambda: "relay has not started; restart to apply its settings" in caplog.text)
        if ends:
            (supervisor,) = daemon._supervisors
            supervisor._settled_s = 0.01
            part.slow_start.set()
            await until(lambda: daemon.states()["relay"].health is Health.OK)
        stop(daemon)
        assert await task == 0
    assert part.done == ["start", *(["run", "drain"] if ends else []), "close"]


class Slow:
    """A service that does not open until it is let."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.failure: BaseException | None = None

    async def start(self) -> None:
        await self.go_on.wait()
        if self.failure is not None:
            raise self.failure

    async def close(self) -> None:
        pass

    def open_files(self) -> tuple[OpenFile, ...]:
        return ()


@pytest.mark.parametrize("failure", [None, MonitorError("cannot use it"), SystemExit(3)], ids=repr)
async def test_a_service_that_does_not_open_in_time_holds_up_no_part(
    part: Fragile,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException | None,
) -> None:
    service = Slow()

    def make(services: Services) -> Part:
        services.opened.append(service)
        return part

    monkeypatch.setattr(assembly, "PARTS", (make,))
    monkeypatch.setattr(daemon_module, "_OPEN_S", 0.01)
    monkeypatch.setattr(opening, "_LEAST_S", 0.01)
    async with running(tmp_path) as (daemon, task):
        await until(lambda: daemon.ready and "run" in part.done)
        assert "Slow has not opened within 0 s; continuing without it" in caplog.text
        service.failure = failure
        service.go_on.set()
        if failure is None:
            await until(lambda: not daemon._opening._late)
            stop(daemon)
        assert await task == (0 if failure is None else 1)
    assert part.done == ["start", "run", "drain", "close"]


class NoTextError(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


_ODD = (
    RuntimeError("a\ndefect"),
    SystemExit(3),
    asyncio.CancelledError(),
    NoTextError(),
    GeneratorExit(),
)


@pytest.mark.parametrize("failure", _ODD, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("when", ["set up", "checked"])
async def test_a_part_that_cannot_be_made_or_checked_ends_the_start_with_a_line(
    part: Fragile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    when: str,
) -> None:
    def relay(services: Services) -> Part:
        del services
        if when == "set up":
            raise failure
        return part

    async def check() -> None:
        raise failure

    monkeypatch.setattr(assembly, "PARTS", (relay,))
    monkeypatch.setattr(part, "check", check)
    with pytest.raises(DefectError) as caught:
        await assembly.check(load(None))
    (line,) = caught.value.lines()
    assert line.startswith(f"relay cannot be {when}: {type(failure).__name__}")
    assert "\n" not in line
    async with running(tmp_path) as (_, task):
        with pytest.raises(DefectError):
            await task


async def test_a_part_that_is_never_ready_for_a_reload_only_fails_that_reload(
    part: Fragile,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(daemon_module, "_PREPARE_S", 0.01)
    part.slow_prepare = True
    async with running(tmp_path) as (daemon, task):
        await until(lambda: daemon.ready)
        daemon.ask_to_reload()
        problem = "reload failed, nothing changed: relay was not ready for it within 0.01 s"
        await until(lambda: problem in caplog.text)
        part.slow_prepare = False
        daemon.ask_to_reload()
        await until(lambda: daemon.last_reload_successful)
        stop(daemon)
        assert await task == 0


@pytest.mark.parametrize("failure", [SystemExit(3), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("where", ["task", "callback"])
def test_an_exit_in_a_task_or_callback_does_not_end_the_loop(
    failure: BaseException, where: str
) -> None:
    def leave() -> None:
        raise failure

    async def fail() -> None:
        leave()

    async def main() -> str:
        if where == "callback":
            asyncio.get_running_loop().call_soon(leave)
            await asyncio.sleep(0.01)
            return "still here"
        with pytest.raises(type(failure)):
            await asyncio.create_task(fail())
        return "still here"

    with contextlib.closing(new_event_loop()) as loop:
        assert run_to_end(loop, main()) == "still here"


async def test_of_a_task_group_that_fails_the_first_cause_is_said(
    part: Fragile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    away = UnavailableError("a server", "is down")
    part.failures = [
        ExceptionGroup("unhandled errors", [ExceptionGroup("more", [away]), KeyError("later")]),
        ExceptionGroup("unhandled errors", [RuntimeError("a defect")]),
    ]

    with caplog.at_level(logging.INFO, logger="monitor"):
        async with running(tmp_path) as (daemon, task):
            await until(lambda: part.done.count("run") == 3)
            stop(daemon)
            assert await task == 0
    assert "relay a server: is down; restarting it in" in caplog.text
    assert "relay failed: RuntimeError; restarting it in" in caplog.text
    assert "ExceptionGroup" not in caplog.text
