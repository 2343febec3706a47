"""Does what a plan says: one method a kind of fault."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from tests.chaos.plan import CLOCK_STEP_S, Fault, clock_eras
from tests.chaos.service import Service
from tests.chaos.stage import Stage
from tests.servers import kubernetes as kubernetes_server
from tests.servers.cut import CutProxy

__all__ = ["Faults"]

_BROKEN_CONFIGS = (
    "relay: [\n",
    "\x00\x01",
    "relay: {keep_finishd: 1}\n",
    "api: {uri: [0.0.0.0, 9000], tokens_file: null}\n",
)


class Faults:
    """Carries out faults on a stage for ``duration_s``; ``say`` gets each, with its result."""

    def __init__(self, stage: Stage, *, duration_s: float, say: Callable[[str], None]) -> None:
        self._stage = stage
        self._duration_s = duration_s
        self._say = say
        self._random = random.Random(stage.seed + 1)
        self._eras = {
            service.name: clock_eras(stage.seed + number)
            for number, service in enumerate(stage.services)
        }
        self._reloads = 0
        self.count: Counter[str] = Counter()
        self.problems: list[str] = []
        self.stop = threading.Event()

    def play(self, faults: Sequence[Fault], began: float) -> None:
        """Do them in order, each when it is due; one that takes longer delays those after it.

        So daemons work under load between two of them, however slow the machine is.
        """
        behind_s = 0.0
        for fault in faults:
            due_s = fault.at_s + behind_s
            wait_s = began + due_s - time.monotonic()
            if due_s > self._duration_s or self.stop.wait(max(0.0, wait_s)):
                return
            method = getattr(self, "_" + fault.kind.replace("-", "_"))
            started = time.monotonic()
            try:
                what = method(fault)
            except Exception as error:  # noqa: BLE001 - the run continues, and ends with a finding
                what = f"{type(error).__name__}: {str(error)[:1500]}"
                self.problems.append(f"{fault.kind} {fault.target}: {what}")
            self.count[fault.kind] += 1
            words = [fault.kind, fault.target, what or f"for {fault.lasts_s:g} s"]
            took = time.monotonic() - started
            behind_s += max(0.0, took - fault.lasts_s)
            self._say(f"{started - began:6.1f} s  {' '.join(filter(None, words))} ({took:.1f} s)")

    def _service(self, fault: Fault) -> Service:
        return self._stage.service(fault.target)

    # Faults of a daemon.

    def _kill(self, fault: Fault) -> None:
        self._service(fault).end(signal.SIGKILL, pause_s=fault.lasts_s)

    def _kill_starting(self, fault: Fault) -> str:
        times = self._random.randint(1, 4)
        starts_s = [self._random.uniform(0, fault.lasts_s) for _ in range(times)]
        self._service(fault).end(signal.SIGKILL, starts_s=starts_s)
        return f"and again after {', '.join(f'{each:.1f}' for each in starts_s)} s"

    def _kill_children(self, fault: Fault) -> str:
        return f"of which it has {self._service(fault).kill_children()}"

    def _terminate(self, fault: Fault) -> None:
        self._service(fault).end(signal.SIGTERM, pause_s=fault.lasts_s)

    def _stop(self, fault: Fault) -> None:
        self._service(fault).pause(fault.lasts_s)

    def _reload(self, fault: Fault) -> str:
        service = self._service(fault)
        self._reloads += 1
        changes: dict[str, dict[str, Any]] = {
            "logger": {"level": ("debug", "info")[self._reloads % 2]},
            "logs": {"cleanup_interval": 1 + self._reloads % 3},
            "aggregation": {"flush_interval": 0.3 + self._reloads % 3 * 0.2},
        }
        config = {
            section: {**values, **changes[section]} if section in changes else values
            for section, values in service.config.items()
        }
        if not service.reload(config):
            self.problems.append(f"{service.name} refused a good config")
        return "taken"

    def _reload_broken(self, fault: Fault) -> str:
        service = self._service(fault)
        text = self._random.choice(_BROKEN_CONFIGS)
        if service.reload(text):
            self.problems.append(f"{service.name} took a bad config: {text!r}")
        return "refused"

    def _clock(self, fault: Fault) -> str:
        clock, eras = self._stage.clocks[fault.target], self._eras[fault.target]
        if not eras:
            return "left alone"
        before, offset_s = clock.offset_s, eras.pop()
        clock.set(offset_s)
        return f"jumps by {(offset_s - before) / CLOCK_STEP_S:+g} h"

    def _state_full(self, fault: Fault) -> None:
        service = self._service(fault)
        with self._stage.full(service.state, service, fatal=True):
            self.stop.wait(fault.lasts_s)

    def _log_full(self, fault: Fault) -> None:
        service = self._service(fault)
        with self._stage.full(service.directory / "log", service, fatal=False):
            self.stop.wait(fault.lasts_s)

    def _kill_while_full(self, fault: Fault) -> None:
        service = self._service(fault)
        with self._stage.full(service.state, service, fatal=True):
            self.stop.wait(fault.lasts_s)
            service.end(signal.SIGKILL, pause_s=0.2)
            self.stop.wait(fault.lasts_s)

    # Faults of the network.

    @contextlib.contextmanager
    def _frozen(self, way: CutProxy) -> Iterator[None]:
        way.freeze()
        try:
            yield
        finally:
            # As often as not the connection is dead afterwards.
            if self._random.random() < 0.5:
                way.cut()
            way.mend()

    def _hang(self, way: CutProxy, fault: Fault) -> None:
        with self._frozen(way):
            self.stop.wait(fault.lasts_s)

    def _cut(self, way: CutProxy, fault: Fault) -> None:
        way.cut()
        self.stop.wait(fault.lasts_s)
        way.mend()

    def _readers_cut(self, fault: Fault) -> str:
        share = self._random.choice((0.3, 0.6, 1.0))
        self._stage.readers_way.cut_all(share)
        return f"{share:.0%} of them"

    def _readers_hang(self, fault: Fault) -> None:
        with self._stage.readers_way.frozen():
            self.stop.wait(fault.lasts_s)

    def _uploads_cut(self, fault: Fault) -> None:
        self._cut(self._random.choice(self._stage.upload_ways), fault)

    def _uploads_hang(self, fault: Fault) -> None:
        self._hang(self._random.choice(self._stage.upload_ways), fault)

    def _broker_swapped(self, fault: Fault) -> str:
        self._stage.relay.swap_broker()
        return "by another one"

    def _broker_cut(self, fault: Fault) -> None:
        self._cut(self._stage.broker_way, fault)

    def _broker_hangs(self, fault: Fault) -> None:
        self._hang(self._stage.broker_way, fault)

    # Faults of the servers.

    def _kubernetes_cut(self, fault: Fault) -> None:
        self._cut(self._stage.kubernetes_way, fault)

    def _kubernetes_hangs(self, fault: Fault) -> None:
        self._hang(self._stage.kubernetes_way, fault)

    def _kubernetes_lies(self, fault: Fault) -> str:
        server = self._stage.kubernetes
        if self._random.random() < 0.5:
            how = self._random.choice(("end", "reset", "truncate", "garbage", "error", "gone"))
            server.break_watches(cast("kubernetes_server.Break", how))
            return f"in its watches: {how}"
        answer: Any = self._random.choice((429, 500, 503, 401, "reset", "truncate", "garbage"))
        verb = self._random.choice(("list", "watch"))
        server.fail(kubernetes_server.Fault(answer, verb, "deployments"))  # type: ignore[arg-type]
        server.break_watches("end")
        return f"to a {verb}: {answer}"

    def _kubernetes_forgets(self, fault: Fault) -> str:
        self._stage.kubernetes.compact()
        self._stage.kubernetes.break_watches("end")
        return "its past"

    def _postgres_crash(self, fault: Fault) -> None:
        assert self._stage.postgres is not None
        self._stage.postgres.crash()
        self.stop.wait(fault.lasts_s)
        self._stage.postgres.start()

    def _postgres_cut(self, fault: Fault) -> None:
        self._cut(self._stage.postgres_way, fault)

    def _postgres_hangs(self, fault: Fault) -> None:
        self._hang(self._stage.postgres_way, fault)

    def _kafka_kill(self, fault: Fault) -> None:
        assert self._stage.kafka is not None
        self._stage.kafka.kill()
        self.stop.wait(fault.lasts_s)
        self._stage.kafka.start()

    def _kafka_stop(self, fault: Fault) -> None:
        assert self._stage.kafka is not None
        self._stage.kafka.pause()
        self.stop.wait(fault.lasts_s)
        self._stage.kafka.resume()

    def _kafka_cut(self, fault: Fault) -> None:
        self._cut(self._stage.kafka_way, fault)

    def _kafka_hangs(self, fault: Fault) -> None:
        self._hang(self._stage.kafka_way, fault)
