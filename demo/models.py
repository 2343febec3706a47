"""Models that are deployed, upgraded, rolled back and fail, on a Kubernetes API that plays it."""

from __future__ import annotations

import contextlib
import copy
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.cluster.play import Step
from tests.cluster.plays import DeploymentPlay
from tests.servers.kubernetes import KubernetesServer

__all__ = ["Models"]

_STEP_S = 0.25
_PAUSE_S = 6.0


class _Ended(Exception):  # noqa: N818 - the way out of a play that is broken off
    """The demonstration is over."""


class Models:
    """The API, its objects, and a thread that changes them."""

    def __init__(self, folder: Path) -> None:
        self._server = KubernetesServer()
        self._kubeconfig = folder / "kubeconfig"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def settings(self) -> dict[str, Any]:
        """Return the section ``cluster``."""
        return {
            "name": "faculty",
            "kubeconfig": str(self._kubeconfig),
            "namespaces": ["models"],
            "kinds": ["Deployment", "Pod"],
        }

    def play(self) -> None:
        """Begin to change things."""
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(_Ended):
            self._play()

    def _play(self) -> None:
        churn, grader = DeploymentPlay("churn"), DeploymentPlay("grader", replicas=1)
        hints = DeploymentPlay("hints")
        self._write(churn.create("registry.example/churn:1.4"))
        self._write(grader.create("registry.example/grader:0.9"))
        version = 4
        while True:
            template = copy.deepcopy(churn.template)
            version += 1
            self._write(churn.set_image(f"registry.example/churn:1.{version}"))
            self._rest()
            self._write(churn.undo(template))
            self._rest()
            self._write(grader.fail(f"registry.example/grader:1.{version}"))
            self._rest()
            self._write(grader.recover())
            self._write(hints.create(f"registry.example/hints:2.{version}"))
            self._rest(30)
            self._write(hints.delete())
            self._rest(120)

    def _rest(self, seconds: float = _PAUSE_S) -> None:
        if self._stop.wait(seconds):
            raise _Ended

    def _write(self, steps: Iterator[Step]) -> None:
        for step in steps:
            for write in step:
                if self._stop.is_set():
                    raise _Ended
                if write.item is None:
                    self._server.delete(write.plural, write.namespace, write.name)
                else:
                    self._server.write(write.plural, write.item)
            self._stop.wait(_STEP_S)

    def __enter__(self) -> Models:
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "demo",
            "contexts": [{"name": "demo", "context": {"cluster": "demo", "user": "demo"}}],
            "clusters": [{"name": "demo", "cluster": {"server": self._server.url}}],
            "users": [{"name": "demo", "user": {}}],
        }
        self._kubeconfig.write_text(json.dumps(content))
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5)
        self._server.stop()
