"""The life cycle of the daemon: start, readiness, reload, drain, stop.

:meth:`Daemon.run` shows the steps. The parts and their shared services are in
:mod:`monitor.daemon.assembly`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from monitor import __version__
from monitor.daemon.allocator import give_memory_back
from monitor.daemon.assembly import Services, check_parts, make_parts
from monitor.daemon.config import Config, LoadedConfig, load
from monitor.daemon.config_warnings import remarks
from monitor.daemon.descriptors import Descriptors
from monitor.daemon.interpreter import (
    new_event_loop,
    settle_garbage,
    take_short_turns,
    with_own_threads,
)
from monitor.daemon.lateness import Lateness
from monitor.daemon.logfile import DaemonLog
from monitor.daemon.opening import Opening
from monitor.daemon.signals import Signals, hold_signals
from monitor.daemon.steps import all_within, run_to_end, unless_set, within
from monitor.daemon.supervision import Supervisor, asked_to_end
from monitor.daemon.systemd import ServiceManager, watchdog_interval
from monitor.errors import (
    ConfigError,
    DefectError,
    MonitorError,
    SettingError,
    UnavailableError,
    without_traces,
)
from monitor.files.threads import any_aside, call_aside, late_threads
from monitor.metrics import Metric
from monitor.part import Health, Part, State
from monitor.yielding import attending, free_in_turns, large_load

__all__ = ["Daemon", "run_daemon"]

logger = logging.getLogger("monitor.daemon")

# The whole shutdown takes at most 5 s.
_END_S = 5.0
_DRAIN_S = 3.5
_CLOSE_S = 1.0
_LEAST_CLOSE_S = 0.25
# For the last lines of the log, after something else has hung; and threads that are named in them.
_LATE_LOG_S = 0.5
_MOST_LATE = 5
# For a start that is under way when a signal asks to stop.
_START_S = 1.0
# For bus and database together; a database that is upgraded is not available for longer.
_OPEN_S = 20.0
# For all parts together, and for one of them after others have used that up.
_START_PARTS_S = 30.0
_LEAST_START_S = 1.0
# For a part to prepare a reload, such as one of a hundred thousand jobs.
_PREPARE_S = 120.0
_RESTART_PAUSE_S = (1.0, 30.0)
_HEARTBEAT_S = 2.0
_LOOK_AT_FILES_S = 1.0


class Daemon:
    """One run of the daemon; use :func:`run_daemon`."""

    def __init__(
        self,
        file: str | None,
        loaded: LoadedConfig,
        log: DaemonLog,
        *,
        narrow: Callable[[Config], Config] = lambda config: config,
        ending: Callable[[], None] = lambda: None,
    ) -> None:
        self._file = file
        self._loaded = loaded
        # The config in effect; after a reload the file may differ in keys that need a restart.
        self.config = loaded.config
        self._log = log
        # start-producer and start-consumer run one part of a config, even after a reload.
        self._narrow = narrow
        # Called as shutdown begins, from when on the time is limited.
        self._ending = ending
        self._manager = ServiceManager()
        self._wake = asyncio.Event()
        self._stop_reason: str | None = None
        self._stopping = asyncio.Event()
        self._exit_status = 0
        self._reload_wanted = False
        self._supervisors: list[Supervisor] = []
        self._opening = Opening(self._on_opening_failed)
        self._lateness = Lateness()
        self._descriptors = Descriptors()
        self._services = Services(loaded.config, stop=self.ask_to_stop, status=self)
        self.parts: list[Part] = []
        # Whether the last reload succeeded, for /metrics.
        self.last_reload_successful = True
        self.started_at = time.time()
        self.ready = False
        self.draining = False

    async def run(self) -> int:
        """Start, serve until stopped, and shut down; raises MonitorError if it cannot start."""
        tasks: list[asyncio.Task[None]] = []
        try:
            if not await unless_set(self._stopping, self._start(), grace_s=_START_S):
                return self._exit_status
            tasks = [
                asyncio.create_task(each.run(), name=f"part:{each.part.name}")
                for each in self._supervisors
            ]
            tasks.append(asyncio.create_task(self._beat(), name="heartbeat"))
            tasks.append(asyncio.create_task(self._lateness.run(), name="lateness"))
            tasks.append(asyncio.create_task(self._look_at_files(), name="files"))
            for task in tasks:
                task.add_done_callback(self._on_task_ended)
            await call_aside(self._loaded.forget_lines)
            settle_garbage()
            self.ready = True
            self._manager.ready()
            logger.info("ready: %s", self.status_text())
            await self._serve()
        finally:
            await self._shutdown(tasks)
        return self._exit_status

    # Start

    async def _start(self) -> None:
        logger.info(
            "recodex-monitor %s starts with %s", __version__, self._loaded.file or "the defaults"
        )
        take_short_turns()
        give_memory_back()
        for part in make_parts(self._loaded, self._services):
            self.parts.append(part)
            self._supervisors.append(Supervisor(part, pause_s=_RESTART_PAUSE_S))
        self._services.parts = self.parts
        await check_parts(self._loaded, self.parts)
        await self._remark()
        self._descriptors.raise_limit(self._supervisors)
        try:
            await self._opening.open(self._services.opened, limit_s=_OPEN_S)
        except SettingError as error:
            raise self._loaded.error(error) from None
        until = time.monotonic() + _START_PARTS_S
        for each in self._supervisors:
            try:
                await each.start(limit_s=max(_LEAST_START_S, until - time.monotonic()))
            except SettingError as error:
                part = each.part
                raise self._loaded.error(error.under(part.section or part.name)) from None

    def _on_opening_failed(self, error: BaseException) -> None:
        if not self.draining:
            self._exit_status = getattr(error, "exit_status", 1)
            self.ask_to_stop(str(error))

    async def _remark(self) -> None:
        for remark in await asyncio.to_thread(remarks, self._loaded):
            logger.warning("%s", remark)

    # Serve

    async def _serve(self) -> None:
        while self._stop_reason is None:
            await self._wake.wait()
            self._wake.clear()
            if self._reload_wanted and self._stop_reason is None:
                self._reload_wanted = False
                await unless_set(self._stopping, self.reload())

    async def _beat(self) -> None:
        watchdog = watchdog_interval(os.environ)
        while True:
            if watchdog is not None:
                self._manager.watchdog()
            self._manager.status(self.status_text())
            self._descriptors.look()
            await asyncio.sleep(min(watchdog or _HEARTBEAT_S, _HEARTBEAT_S))

    async def _look_at_files(self) -> None:
        """End the process where an SQLite file that is open is no longer at its path.

        It exits at once, without draining: further commits would be lost, and must not be
        acknowledged. The service manager restarts the daemon with the file that is there then.
        """
        while True:
            await asyncio.sleep(_LOOK_AT_FILES_S)
            files = [file for each in self._services.opened for file in each.open_files()]
            files += [file for each in self._supervisors for file in each.open_files()]
            # The disk may hang.
            lost = await call_aside(lambda: [file for file in files if file.lost()])  # noqa: B023
            for file in lost:
                logger.error("stopping: %s was deleted or replaced while in use", file.path)
                file.discard_log()
                self._log.stop()
                os._exit(1)

    def states(self) -> dict[str, State]:
        """Return the states of parts and shared services, by name."""
        states = self._services.states()
        states.update((each.part.name, each.state()) for each in self._supervisors)
        return states

    def metrics(self) -> Iterable[Metric]:
        """Return the metrics of parts and shared services."""
        yield from self._lateness.metrics()
        yield from self._services.metrics()
        for each in self._supervisors:
            yield from each.metrics()
        restarts = [({"part": each.part.name}, each.restarts) for each in self._supervisors]
        yield Metric("part_restarts_total", "counter", "Restarts of a part that failed", restarts)

    def status_text(self) -> str:
        """Return the text for ``systemctl status``: the state of each part, with numbers."""
        words = []
        for name, state in self.states().items():
            health = "" if state.health is Health.OK else f" {state.health}"
            words.append(
                f"{name}{health}: {state.summary}" if state.summary else f"{name}{health or ' ok'}"
            )
        return "; ".join(words) or "all parts are off"

    # Reload

    async def reload(self) -> None:
        """Read and adopt the file, or log an error and change nothing."""
        self._manager.reloading()
        try:
            with large_load():
                await self._reload()
        finally:
            self._manager.ready()

    async def _reload(self) -> None:
        try:
            loaded = await call_aside(self._load)
            if loaded.empty and not self._loaded.empty:
                # It may be empty for a moment while an editor or cp writes it.
                raise ConfigError(
                    "is empty; to use the defaults, add a comment", file=loaded.file or ""
                )
            loaded.config = self._narrow(loaded.config)
            await self._adopt(loaded)
            await self._remark()
            await call_aside(loaded.forget_lines)
            self._descriptors.raise_limit(self._supervisors)
        except MonitorError as error:
            self.last_reload_successful = False
            for line in error.lines():
                logger.error("reload failed, nothing changed: %s", line)
        except BaseException as error:  # a defect here must not end the daemon
            if asked_to_end(error, asyncio.current_task()):
                raise
            self.last_reload_successful = False
            logger.error("reload failed: %s", type(error).__name__, exc_info=error)

    def _load(self) -> LoadedConfig:
        try:
            loaded = load(self._file)
            # What it looks up of each section's type takes long the first time.
            list(self.config.differences(loaded.config))
        except MonitorError as error:
            raise without_traces(error) from None
        except BaseException as error:  # a defect here must not end the daemon
            logger.error("the config could not be read", exc_info=error)
            raise ConfigError(
                f"cannot be read: {type(error).__name__}", file=self._file or ""
            ) from None
        else:
            return loaded

    async def _adopt(self, loaded: LoadedConfig) -> None:
        """Switch to a new config, after every part has accepted it."""
        old, new = self.config, self.config.adopting(loaded.config)
        self._services.prepare(loaded.config)
        switches: list[Callable[[], None]] = []
        for each in self._supervisors:
            part = each.part
            name = part.section or part.name
            settings = getattr(loaded.config, name, None)
            if settings is None:
                continue
            if not each.started:
                logger.warning("%s has not started; restart to apply its settings", part.name)
                continue
            try:
                switches.append(await within(part.prepare(settings), _PREPARE_S))
            except SettingError as error:
                raise loaded.error(error.under(name)) from None
            except TimeoutError:
                problem = f"{part.name} was not ready for it within {_PREPARE_S:g} s"
                raise MonitorError(problem) from None
        if new.logger != old.logger:
            await call_aside(self._log.reload, new.logger)
        for switch in switches:
            try:
                switch()
            except BaseException as error:
                logger.error("a part did not apply its settings", exc_info=error)
        free_in_turns(list(old.items()))
        self._loaded, self.config = loaded, new
        self.last_reload_successful = True
        logger.info("reloaded %s", loaded.file or "the defaults")
        waiting = ", ".join(new.differences(loaded.config))
        if waiting:
            logger.warning("changed but not applied; restart to apply: %s", waiting)

    # Stop

    def ask_to_reload(self) -> None:
        """Read the config again after the current step."""
        self._reload_wanted = True
        self._wake.set()

    def ask_to_stop(self, reason: str) -> None:
        """Stop in order; the first reason is the one that the log has."""
        if self._stop_reason is None:
            self._stop_reason = reason
            logger.info("stopping: %s", reason)
        self._stopping.set()
        self._wake.set()

    def _on_task_ended(self, task: asyncio.Task[None]) -> None:
        """Stop the daemon if a task ends unexpectedly: systemd restarts it."""
        if self.draining or task.cancelled():
            return
        self._exit_status = 1
        logger.critical("the task %s ended", task.get_name(), exc_info=task.exception())
        self.ask_to_stop(f"the task {task.get_name()} ended")

    async def _shutdown(self, tasks: list[asyncio.Task[Any]]) -> None:
        self.draining = True
        self._ending()
        until = time.monotonic() + _END_S
        if self.ready:
            self._manager.stopping()
            # All parts drain concurrently.
            await all_within(
                [(each.part.name, each.part.drain()) for each in self._supervisors if each.started],
                "draining",
                _DRAIN_S,
            )
        self._opening.cancel()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_LEAST_CLOSE_S)
        await all_within([(part.name, part.close()) for part in self.parts], "closing", _CLOSE_S)
        # Bus and store are last: the parts have flushed into them.
        for service in reversed(self._services.opened):
            limit_s = min(_CLOSE_S, max(_LEAST_CLOSE_S, until - time.monotonic()))
            await all_within([(type(service).__name__, service.close())], "closing", limit_s)
        if self.ready:
            logger.info("stopped")
        self._manager.close()


def run_daemon(
    file: str | None,
    *,
    narrow: Callable[[Config], Config] = lambda config: config,
    remark: Callable[[Config], str | None] = lambda config: None,
) -> int:
    """Run the daemon with ``file`` or the defaults, and return its exit status.

    ``narrow`` derives the config to run from that of the file, again after each reload. ``remark``
    returns a first line for the log about the config, if any. Raises MonitorError, already logged,
    if the daemon cannot start.
    """
    hold_signals()
    loaded = load(file)
    said = remark(loaded.config)
    loaded.config = narrow(loaded.config)
    log = DaemonLog(loaded.config.logger)
    # First of all, because threads inherit the blocked signals.
    with Signals(log) as signals:
        log.start()
        if said is not None:
            logger.info("%s", said)
        try:
            with (
                asyncio.Runner(loop_factory=new_event_loop) as runner,
                attending(runner.get_loop()),
            ):
                daemon = Daemon(file, loaded, log, narrow=narrow, ending=signals.limit_the_end)
                signals.attend(
                    runner.get_loop(), stop=daemon.ask_to_stop, reload=daemon.ask_to_reload
                )
                # Leaving the runner waits for the threads of its loop, one of which may hang.
                with with_own_threads(runner.get_loop()):
                    signals.status = run_to_end(runner.get_loop(), daemon.run())
        except Exception as unknown:
            error = (
                unknown
                if isinstance(unknown, MonitorError)
                else DefectError("stopping at an internal error", unknown)
            )
            error.logged = True
            if isinstance(error, UnavailableError):
                # For a command this status means a retry; systemd restarts the daemon in any case.
                error.exit_status = MonitorError.exit_status
            signals.status = error.exit_status
            for line in error.lines():
                logger.critical("%s", line)
            if isinstance(error, DefectError):
                logger.debug("it came from", exc_info=error.__cause__ or unknown)
            raise error from None
        finally:
            late = late_threads(_LEAST_CLOSE_S)
            if late:
                logger.warning("stopping at once: still busy: %s", ", ".join(late[:_MOST_LATE]))
            stopped = log.stop(limit_s=_LATE_LOG_S) if late else log.stop()
            if late or not stopped or any_aside():
                # The interpreter's own end would wait for what hangs, or compete with a thread that
                # reads a config, and free all that it has read.
                os._exit(signals.status)
    return signals.status
