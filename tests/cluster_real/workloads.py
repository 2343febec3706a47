"""Deployments in a namespace, changed as an operator changes them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cluster.play import LABELS
from tests.cluster_real.servers import Api
from tests.waiting import wait_for

__all__ = ["DaemonSet", "Deployment", "Namespace", "StatefulSet"]

Object = dict[str, Any]

_ROLLOUT_S = 60.0
_STRATEGIC = "application/strategic-merge-patch+json"
_JSON = "application/json-patch+json"


class Namespace:
    """A namespace, and a kubeconfig that may read it."""

    def __init__(self, api: Api, name: str, kubeconfig: Path) -> None:
        self.api = api
        self.name = name
        self.kubeconfig = kubeconfig

    def deployment(self, name: str, image: str, **more: Any) -> Deployment:
        """Create a Deployment, and return at once."""
        made = Deployment(self, name)
        made.create(image, **more)
        return made

    @property
    def path(self) -> str:
        """The namespace in paths of the API."""
        return f"namespaces/{self.name}"


class Deployment:
    """One Deployment; what changes it returns at once, :meth:`stands` and the like wait.

    ``manager`` is who changes it, as its managedFields say.
    """

    kind, plural = "Deployment", "deployments"

    def __init__(self, namespace: Namespace, name: str, *, manager: str = "tests") -> None:
        self._api = namespace.api
        self.name = name
        self.manager = manager
        self._all = f"/apis/apps/v1/namespaces/{namespace.name}/{self.plural}"
        self._path = f"{self._all}/{name}"

    def create(
        self,
        image: str,
        *,
        replicas: int = 1,
        deadline_s: int = 600,
        labels: dict[str, str] | None = None,
    ) -> None:
        selector = {"app": self.name}
        every = {**LABELS, **selector, **(labels or {})}
        self._api.call(
            "POST",
            f"{self._all}?fieldManager={self.manager}",
            {
                "apiVersion": "apps/v1",
                "kind": self.kind,
                "metadata": {"name": self.name, "labels": every},
                "spec": {
                    **self._scale(replicas, deadline_s),
                    "selector": {"matchLabels": selector},
                    "template": {
                        "metadata": {"labels": every},
                        "spec": {"containers": [{"name": "model", "image": image}]},
                    },
                },
            },
        )

    def set_image(self, image: str) -> None:
        self._set_container(image=image)

    def set_environment(self, value: str) -> None:
        self._set_container(env=[{"name": "THREADS", "value": value}])

    def set_version(self, version: str) -> None:
        labels = {"metadata": {"labels": {"app.kubernetes.io/version": version}}}
        self._patch({**labels, "spec": {"template": labels}})

    def restart(self) -> None:
        """Do as ``kubectl rollout restart``."""
        at = {"kubectl.kubernetes.io/restartedAt": "2021-02-09T08:00:00Z"}
        self._patch({"spec": {"template": {"metadata": {"annotations": at}}}})

    def undo(self, template: Object) -> None:
        """Roll back to a former template, as ``kubectl rollout undo`` does."""
        change = {"op": "replace", "path": "/spec/template", "value": template}
        self._api.call("PATCH", self._path, [change], of=_JSON)  # type: ignore[arg-type]

    def set_component(self, component: str) -> None:
        """Change the label by which it is watched, on the object alone."""
        self._patch({"metadata": {"labels": {"app.kubernetes.io/component": component}}})

    def pause(self, *, paused: bool = True) -> None:
        """Do as ``kubectl rollout pause`` or ``resume``."""
        self._patch({"spec": {"paused": paused}})

    def give_time(self, deadline_s: int = 600) -> None:
        """Let its next rollout take longer."""
        self._patch({"spec": {"progressDeadlineSeconds": deadline_s}})

    def scale(self, replicas: int) -> None:
        self._patch({"spec": {"replicas": replicas}})

    def annotate(self, key: str, value: str) -> None:
        self._patch({"metadata": {"annotations": {key: value}}})

    def delete(self) -> None:
        """Delete it with all that belongs to it."""
        foreground = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Foreground",
        }
        self._api.call("DELETE", self._path, foreground)

    def gone(self) -> None:
        """Wait until it is deleted with all that belonged to it."""

        def names() -> list[str]:
            return [item["metadata"]["name"] for item in self._api.call("GET", self._all)["items"]]

        wait_for(lambda: self.name not in names(), f"{self.name}: its end", limit_s=_ROLLOUT_S)

    @property
    def template(self) -> Object:
        found: Object = copy.deepcopy(self._read()["spec"]["template"])
        return found

    def stands(self) -> None:
        """Wait until its rollout is over, as ``kubectl rollout status`` does."""

        self._wait(self._is_over, "its rollout")

    def failed(self) -> None:
        """Wait until its deadline is over."""
        self._wait(
            lambda item: any(
                condition["type"] == "Progressing"
                and condition.get("reason") == "ProgressDeadlineExceeded"
                for condition in item["status"].get("conditions", [])
            ),
            "the end of its deadline",
        )

    def _scale(self, replicas: int, deadline_s: int) -> Object:
        return {"replicas": replicas, "progressDeadlineSeconds": deadline_s}

    def _is_over(self, item: Object) -> bool:
        status = item["status"]
        keys = ("updatedReplicas", "replicas", "availableReplicas")
        return [status.get(key, 0) for key in keys] == [item["spec"]["replicas"]] * 3

    def _wait(self, condition: Callable[[Object], bool], what: str) -> None:
        def seen() -> bool:
            item = self._read()
            current = item["status"].get("observedGeneration", 0) == item["metadata"]["generation"]
            return current and condition(item)

        wait_for(seen, f"{self.name}: {what}", limit_s=_ROLLOUT_S)

    def _read(self) -> Object:
        return self._api.call("GET", self._path)

    def _patch(self, change: Object) -> None:
        path = f"{self._path}?fieldManager={self.manager}"
        self._api.call("PATCH", path, change, of=_STRATEGIC)

    def _set_container(self, **settings: Any) -> None:
        container = {"name": "model", **settings}
        self._patch({"spec": {"template": {"spec": {"containers": [container]}}}})


class StatefulSet(Deployment):
    """One StatefulSet; its pods are replaced one by one."""

    kind, plural = "StatefulSet", "statefulsets"

    def _scale(self, replicas: int, deadline_s: int) -> Object:
        return {"replicas": replicas, "serviceName": self.name}


class DaemonSet(Deployment):
    """One DaemonSet; it has a pod for each node."""

    kind, plural = "DaemonSet", "daemonsets"

    def _scale(self, replicas: int, deadline_s: int) -> Object:
        return {}

    def _is_over(self, item: Object) -> bool:
        status = item["status"]
        wanted = status.get("desiredNumberScheduled", 0)
        counts = [status.get(key, 0) for key in ("updatedNumberScheduled", "numberAvailable")]
        return wanted > 0 and counts == [wanted] * 2
