"""Rollouts of custom resources, step by step, as their controllers write them.

Inside, the spec is that of any play; each kind writes it in its own form.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from tests.cluster.play import Object, Play, Step, Write

__all__ = ["CustomPlay", "InferenceServicePlay", "KnativePlay", "ResourcePlay"]


class ResourcePlay(Play):
    """A resource whose controller makes no objects that the daemon asks for."""

    def scale(self, replicas: int) -> Iterator[Step]:
        """Change the spec, but not what it runs."""
        self.replicas = replicas
        yield self._spec(lambda spec: spec.update(replicas=replicas))
        yield [self._reached("True")]

    def flap(self) -> Iterator[Step]:
        yield [self._reached("Unknown")]
        yield [self._reached("True")]

    def _selector(self) -> Object:
        return {}

    def _begin(self) -> Iterator[Step]:
        yield [self._reached("Unknown")]

    def _replace(self) -> Iterator[Step]:
        yield [self._reached("True")]

    def _give_up(self) -> Iterator[Step]:
        yield from self._begin()
        yield [self._reached("False")]

    def _reached(self, ready: str) -> Write:
        """Write the status of the spec as it is; ``ready`` False is a failure."""
        self.item["status"] = {
            "observedGeneration": self.generation,
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": self._time}],
            **self._status_of(ready),
        }
        return self._write()

    def _write(self) -> Write:
        item = {**self.item, "spec": self._spec_of(self.item["spec"]["template"]["spec"])}
        return Write(self.plural, self.namespace, self.name, copy.deepcopy(item))

    @property
    def _time(self) -> str:
        return f"2021-02-{self.day:02}T09:{self.generation:02}:00Z"

    def _status_of(self, ready: str) -> Object:
        raise NotImplementedError

    def _spec_of(self, pod: Object) -> Object:
        raise NotImplementedError


class InferenceServicePlay(ResourcePlay):
    """An InferenceService of KServe: the image of the play is its model's location."""

    plural = "inferenceservices"
    change = "version-changed"

    def _spec_of(self, pod: Object) -> Object:
        container = pod["containers"][0]
        model: Object = {"modelFormat": {"name": "onnx"}, "storageUri": container["image"]}
        model |= {"env": container["env"]} if "env" in container else {}
        return {"predictor": {"minReplicas": self.replicas, "model": model}}

    def _status_of(self, ready: str) -> Object:
        state = {"True": "UpToDate", "Unknown": "InProgress", "False": "BlockedByFailedLoad"}
        info = {"reason": "ModelLoadFailed", "message": "no such bucket", "time": self._time}
        return {"modelStatus": {"transitionStatus": state[ready], "lastFailureInfo": info}}


class KnativePlay(ResourcePlay):
    """A Service of Knative."""

    plural = "services"
    ready_revision: str | None = None

    def _spec_of(self, pod: Object) -> Object:
        return {"template": self.item["spec"]["template"]}

    def _status_of(self, ready: str) -> Object:
        created = f"{self.name}-{self.generation:05}"
        if ready == "True":
            self.ready_revision = created
        shares: list[Any] = [{"revisionName": self.ready_revision, "percent": 100}]
        return {
            "latestCreatedRevisionName": created,
            "latestReadyRevisionName": self.ready_revision,
            "traffic": shares if self.ready_revision else [],
        }


class CustomPlay(ResourcePlay):
    """A ModelServer, as tests describe it in the config; it has a version and nothing else."""

    plural = "modelservers"
    change = "version-changed"

    def _spec_of(self, pod: Object) -> Object:
        return {"model": {"version": pod["containers"][0]["image"]}}

    def _status_of(self, ready: str) -> Object:
        return {"problem": "no memory" if ready == "False" else ""}
