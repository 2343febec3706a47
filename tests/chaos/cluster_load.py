"""Deployments that come, change and go; each change is published before the next one is made."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from tests.chaos.findings import Finding
from tests.cluster.model import Model
from tests.cluster.play import Step
from tests.servers.kubernetes import KubernetesServer

__all__ = ["ClusterLoad", "Told"]

# type's last word, cause, image
Told = tuple[str, str, str | None]
_ACTS = (
    ["create"] * 3
    + ["set_image"] * 4
    + ["undo"] * 3
    + [
        "delete",
        "fail",
        "recover",
        "create_and_fail",
        "set_environment",
        "scale",
        "flap",
        "annotate",
    ]
)


class ClusterLoad:
    """Acts on a few services in a thread; ``told`` reads from the store what was published of each.

    As a service is acted on only when its last change was published, whatever happens between, the
    events must be exactly the model's.
    """

    def __init__(
        self, seed: int, server: KubernetesServer, told: Callable[[], dict[str, list[Told]] | None]
    ) -> None:
        self._random = random.Random(seed)
        self.server = server
        self._told = told
        self._model = Model()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cluster", daemon=True)
        self._names = ["churn", "fraud", "rank", "vision"]
        self.acts = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Make no more changes."""
        self._stopping.set()
        self._thread.join(30)

    def _run(self) -> None:
        ready_at = dict.fromkeys(self._names, 0.0)
        while not self._stopping.wait(0.1):
            told = self._told()
            if told is None:
                continue
            for name in self._names:
                if told.get(name, []) != self._model.expected.get(name, []):
                    continue
                now = time.monotonic()
                if ready_at[name] == 0.0:
                    ready_at[name] = now + self._random.uniform(0.1, 2.0)
                elif now >= ready_at[name]:
                    ready_at[name] = 0.0
                    self._act(name)

    def _act(self, name: str) -> None:
        steps = None
        while steps is None:
            steps = self._model.act(name, self._random.choice(_ACTS), self._random.randrange(4))
        self.acts += 1
        for step in steps:
            self._write(step)
            # A rollout takes its time.
            self._stopping.wait(self._random.uniform(0, 0.05))
        self._model.look()

    def _write(self, step: Step) -> None:
        for write in step:
            if write.item is None:
                self.server.delete(write.plural, write.namespace, write.name)
            else:
                self.server.write(write.plural, write.item)

    def settled(self) -> bool:
        """Return whether everything was published."""
        told = self._told()
        return told is not None and all(
            told.get(name, []) == events for name, events in self._model.expected.items()
        )

    def finding(self, ids: list[str]) -> Finding:
        """Judge what the store has at the end; ``ids`` are those of all its events."""
        told = self._told() or {}
        problems = [
            f"{name}: told {told.get(name, [])[-6:]}, expected {events[-6:]}"
            for name, events in self._model.expected.items()
            if told.get(name, []) != events
        ]
        if len(set(ids)) != len(ids):
            problems.append(f"{len(ids) - len(set(ids))} ids twice")
        return Finding(
            "model events are the changes made, in order, each id once",
            f"{self.acts} acts, {sum(map(len, told.values()))} events of deployments,"
            f" {len(ids)} in all",
            tuple(problems),
        )
