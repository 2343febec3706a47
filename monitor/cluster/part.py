"""The cluster part: a thread per watch, and the journal between the threads and the bus."""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

from monitor.bus import Bus
from monitor.cluster.api import SERVICE_ACCOUNT, Api, ApiError, Reason
from monitor.cluster.journal import Journal
from monitor.cluster.kinds import KINDS
from monitor.cluster.kinds.custom import CustomKind
from monitor.cluster.lookup import Lookup
from monitor.cluster.settings import ClusterSettings
from monitor.cluster.states import Known, ScopeChanges
from monitor.cluster.tracker import Tracker
from monitor.cluster.watch import Scope, Timing, Watch
from monitor.errors import MissingPackageError, MonitorError
from monitor.metrics import Metric
from monitor.part import Health, Part, State, counted
from monitor.store import Store

__all__ = ["Cluster"]

logger = logging.getLogger("monitor.cluster")

_PURGE_S = 3600.0
# Within what the daemon allows for draining, with time left to forward what was committed.
_STOP_S = 2.0
_LAST_FORWARD_S = 2.0
_POLL_S = 0.2


class Cluster(Part):
    """Watches the model services of a cluster and reports changes."""

    name: ClassVar[str] = "cluster"

    def __init__(
        self,
        settings: ClusterSettings,
        *,
        store: Store,
        bus: Bus,
        timing: Timing | None = None,
        service_account: Path = SERVICE_ACCOUNT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._store = store
        self._bus = bus
        self._timing = timing or Timing()
        self._service_account = service_account
        self._clock = clock
        self._adopted = asyncio.Event()
        self._draining = False
        self._session: _Session | None = None
        self._reported: Counter[str] = Counter()
        self._restarts: Counter[Reason] = Counter()

    async def start(self) -> None:
        """Import the kubernetes package, which takes a moment; contacts nothing."""
        try:
            await asyncio.to_thread(importlib.import_module, "kubernetes.client")
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "kubernetes":
                raise
            raise MissingPackageError("cluster", "kubernetes", "python3-kubernetes") from None

    async def run(self) -> None:
        """Watch until cancelled; restart with new settings after a reload."""
        while True:
            self._adopted.clear()
            session = _Session(
                self._settings,
                journal=Journal(
                    self._store,
                    self._bus,
                    cluster=self._settings.name,
                    topic=self._settings.topic,
                    clock=self._clock,
                ),
                timing=self._timing,
                service_account=self._service_account,
                clock=self._clock,
            )
            self._session = session
            try:
                await session.run(until=self._adopted)
            except MonitorError:
                if not self._draining:
                    raise
            finally:
                self._reported += session.journal.reported
                self._restarts += session.restarts()
                self._session = None
            if self._draining:
                await asyncio.Event().wait()

    async def drain(self) -> None:
        """Stop watching, and forward committed events."""
        self._draining = True
        session = self._session
        if session is not None:
            await session.stop()
            await session.finished.wait()

    async def close(self) -> None:
        """Abort pending reads."""
        if self._session is not None:
            self._session.api.close()

    def state(self) -> State:
        """Return degraded while a watch fails, or the store or the bus is unavailable."""
        if self._draining:
            return State(Health.STOPPING)
        if self._session is None:
            return State(Health.STARTING)
        return self._session.state()

    def descriptors(self) -> int:
        """Return two connections per watch, and some for the store and the bus."""
        settings = self._settings
        kinds = len(settings.kinds) + len(settings.custom_kinds)
        return 2 * kinds * max(1, len(settings.namespaces)) + 32

    def metrics(self) -> Iterable[Metric]:
        """Return counts of events by type, and of ends of watches by reason."""
        reported, restarts = self._reported, self._restarts
        if self._session is not None:
            reported = reported + self._session.journal.reported
            restarts = restarts + self._session.restarts()
        yield Metric(
            "model_updates_total",
            "counter",
            "Model events, by CloudEvents type.",
            [({"type": type_}, count) for type_, count in reported.items()],
        )
        yield Metric(
            "cluster_watch_restarts_total",
            "counter",
            "Ends of lists and watches of the Kubernetes API, by reason.",
            [({"reason": reason.value}, count) for reason, count in restarts.items()],
        )

    async def prepare(self, settings: ClusterSettings) -> Callable[[], None]:
        """Adopt new settings by restarting the watches; a list finds changes in the meantime.

        With the same settings, only the credentials are loaded again.
        """
        adopted = self._settings.adopting(settings)

        def switch() -> None:
            if adopted != self._settings:
                self._settings = adopted
                self._adopted.set()
            elif self._session is not None:
                self._session.api.renew()

        return switch


class _Session:
    """The threads for one version of the settings."""

    def __init__(
        self,
        settings: ClusterSettings,
        *,
        journal: Journal,
        timing: Timing,
        service_account: Path,
        clock: Callable[[], float],
    ) -> None:
        self.journal = journal
        self.watches: list[Watch] = []
        self._settings = settings
        self._timing = timing
        self._clock = clock
        self._kinds = [KINDS[name] for name in settings.kinds]
        self._kinds += [CustomKind(custom) for custom in settings.custom_kinds]
        self._scopes = [
            Scope(kind.name, namespace, settings.label_selector, kind.resource)
            for kind in self._kinds
            for namespace in settings.namespaces or ("",)
        ]
        self.api = Api(
            settings.kubeconfig_path(),
            service_account=service_account,
            connections=2 * len(self._scopes),
        )
        self._trackers: list[Tracker] = []
        self._ended: list[concurrent.futures.Future[None]] = []
        self._stop = threading.Event()
        self._stopping = asyncio.Event()
        self._stop_until = math.inf
        self._loop = asyncio.get_running_loop()
        self.finished = asyncio.Event()

    async def run(self, *, until: asyncio.Event) -> None:
        """Watch until the event or :meth:`stop`; raises the error of a thread."""
        try:
            await self.journal.keep_scopes(self._scopes)
            for scope in self._scopes:
                known = await self.journal.load(scope)
                if not self._stop.is_set():
                    self._start(scope, known)
            await self._watch(until)
        finally:
            await self.stop()
            self.finished.set()

    async def _watch(self, until: asyncio.Event) -> None:
        forward = asyncio.create_task(self.journal.forward(), name="cluster:forward")
        tasks: set[asyncio.Task[Any]] = {
            forward,
            asyncio.create_task(self._purge(), name="cluster:purge"),
            asyncio.create_task(until.wait(), name="cluster:adopted"),
            asyncio.create_task(self._stopping.wait(), name="cluster:stopping"),
        }
        threads = {asyncio.wrap_future(future) for future in self._ended}
        try:
            done, _ = await asyncio.wait(tasks | threads, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                future.result()
        finally:
            await self.stop()
            # Forward and mark committed events; otherwise they would be sent again.
            self.journal.finish()
            await asyncio.wait({forward}, timeout=_LAST_FORWARD_S)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def stop(self) -> None:
        """Stop the threads, within 2 s from the first call.

        Those that wait for a server which does not answer are abandoned.
        """
        self._stop.set()
        self._stopping.set()
        first = self._stop_until == math.inf
        if first:
            self._stop_until = time.monotonic() + _STOP_S
        self.journal.stop_trying()
        await asyncio.to_thread(self.api.stop)
        ended = {asyncio.wrap_future(future) for future in self._ended if not future.done()}
        if ended:
            left_s = max(0.0, self._stop_until - time.monotonic())
            _, late = await asyncio.wait(ended, timeout=left_s)
            if late and first:
                logger.warning("%d watches did not stop in time", len(late))
        await asyncio.to_thread(self.api.close)

    def restarts(self) -> Counter[Reason]:
        """Return the ends of all watches by reason."""
        return sum((watch.restarts.copy() for watch in self.watches), Counter())

    def state(self) -> State:
        objects = sum(len(tracker) for tracker in self._trackers)
        summary = f"{counted(objects, 'object')} of {self._settings.name}"
        if self.journal.outage.problem is not None:
            return State(Health.DEGRADED, self.journal.outage.summary)
        missing = [watch for watch in self.watches if watch.reason is Reason.MISSING]
        kinds = {kind.name: kind for kind in self._kinds}
        troubled = [
            watch
            for watch in self.watches
            if watch.problem is not None
            and (
                watch.reason not in {None, Reason.MISSING}
                # A cluster may lack an optional kind, but it serves some.
                or (watch.reason is Reason.MISSING and not kinds[watch.scope.kind].optional)
            )
        ]
        if not troubled and missing and len(missing) == len(self._scopes):
            troubled = missing
        if troubled:
            watch, more = troubled[0], len(troubled) - 1
            others = f" (and {more} more)" if more else ""
            problem = f"{watch.scope}: {watch.problem}{others}"
            if watch.reason is Reason.MISSING:
                problem += "; is this the API of a cluster with these kinds?"
            return State(Health.DEGRADED, f"{summary}; {problem}")
        if len(self.watches) < len(self._scopes) or any(
            watch.problem is not None and watch.reason is None for watch in self.watches
        ):
            waiting = self.api.waiting
            return State(Health.STARTING, f"{summary}; {waiting}" if waiting else summary)
        if missing:
            names = dict.fromkeys(watch.scope.kind for watch in missing)
            summary += f"; no {', '.join(names)} here"
        return State(Health.OK, summary)

    def _start(self, scope: Scope, known: Known) -> None:
        tracker = Tracker(
            scope,
            known,
            cluster=self._settings.name,
            mapping=self._settings.mapping,
            lookup=Lookup(self.api),
            commit=self._commit,
            clock=self._clock,
            keep_removed_s=self._settings.keep_events,
            kind=next(kind for kind in self._kinds if kind.name == scope.kind),
            link=self._settings.link,
        )
        watch = Watch(self.api, scope, tracker, stop=self._stop, timing=self._timing)
        ended: concurrent.futures.Future[None] = concurrent.futures.Future()

        def work() -> None:
            try:
                watch.run()
            except BaseException as error:  # noqa: BLE001 - raised again by run()
                ended.set_exception(error)
            else:
                ended.set_result(None)

        name = f"watch-{scope.kind.lower()}-{scope.namespace or 'all'}"
        self._trackers.append(tracker)
        self.watches.append(watch)
        self._ended.append(ended)
        threading.Thread(target=work, name=name, daemon=True).start()

    def _commit(self, changes: ScopeChanges) -> None:
        """Commit, called by the thread of a watch, and wait; raises ApiError only when stopping."""
        if self._stop.is_set():
            raise ApiError(Reason.ENDED, "stopping")
        future = asyncio.run_coroutine_threadsafe(self.journal.commit(changes), self._loop)
        while True:
            try:
                return future.result(_POLL_S)
            except (MonitorError, concurrent.futures.CancelledError):
                # The journal gives up only after stop_trying().
                raise ApiError(Reason.ENDED, "stopping") from None
            except TimeoutError:
                continue

    async def _purge(self) -> None:
        while True:
            await self.journal.purge(self._settings.keep_events)
            await asyncio.sleep(_PURGE_S)
