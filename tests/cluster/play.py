"""What the plays of all kinds of workloads have in common."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

__all__ = ["LABELS", "TIMED_OUT", "Object", "Play", "Step", "Write", "digest_of"]

Object = dict[str, Any]

TIMED_OUT = "ProgressDeadlineExceeded"

LABELS = {"app.kubernetes.io/component": "model"}


def digest_of(image: str, build: int = 0) -> str:
    """Return the digest that a registry has for a tag; another one for each build."""
    return "sha256:" + hashlib.sha256(f"{image} {build}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Write:
    """One write: ``item`` None deletes."""

    plural: str
    namespace: str
    name: str
    item: Object | None


Step = list[Write]


class Play:
    """What Deployments and DeploymentConfigs have in common."""

    plural = ""
    holder_plural = ""
    surplus = True
    """Whether a new pod comes before an old one goes."""
    change = "image-changed"
    """The cause of the event of another version."""

    def __init__(
        self,
        name: str = "churn",
        namespace: str = "models",
        *,
        replicas: int = 2,
        uid: str | None = None,
        labels: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        self.namespace = namespace
        self.replicas = replicas
        self.uid = uid or f"{self.plural}-{namespace}-{name}"
        self.labels = {**LABELS, "app": name, **(labels or {})}
        self.generation = 0
        self.build = 0
        self.created = "2021-02-08T20:00:00Z"
        self.day = 9
        """Of February: time does not go back where the cluster goes back to a backup."""
        self.item: Object = {}
        self.holders: dict[str, Object] = {}
        self.pods: dict[str, Object] = {}
        self._pod_number = 0

    # What tests say.

    def create(self, image: str) -> Iterator[Step]:
        """Create it and roll it out."""
        yield self._created(image)
        yield from self._roll_out()

    def set_image(self, image: str) -> Iterator[Step]:
        """Change the image and roll it out."""
        yield self._spec(lambda spec: spec["template"]["spec"]["containers"][0].update(image=image))
        yield from self._roll_out()

    def set_version(self, version: str) -> Iterator[Step]:
        """Change the version's label, on the object and its template."""
        self.labels["app.kubernetes.io/version"] = version
        self.item["metadata"]["labels"] = dict(self.labels)
        yield self._spec(lambda spec: spec["template"]["metadata"].update(labels=dict(self.labels)))
        yield from self._roll_out()

    def set_environment(self, value: str) -> Iterator[Step]:
        """Change something else in the template and roll it out."""
        yield self._spec(
            lambda spec: spec["template"]["spec"]["containers"][0].update(
                env=[{"name": "THREADS", "value": value}]
            )
        )
        yield from self._roll_out()

    def restart(self, at: str) -> Iterator[Step]:
        """Do as ``kubectl rollout restart``; images by tag are pulled again."""
        yield self._spec(
            lambda spec: spec["template"]["metadata"].update(
                annotations={"kubectl.kubernetes.io/restartedAt": at}
            )
        )
        yield from self._roll_out()

    def undo(self, template: Object) -> Iterator[Step]:
        """Roll back to a former template, as ``kubectl rollout undo`` does."""
        yield self._spec(lambda spec: spec.update(template=copy.deepcopy(template)))
        yield from self._roll_out()

    def fail(self, image: str) -> Iterator[Step]:
        """Change the image to one that never gets ready, until the deadline is over."""
        yield self._spec(lambda spec: spec["template"]["spec"]["containers"][0].update(image=image))
        yield from self._give_up()

    def fail_with_environment(self, value: str) -> Iterator[Step]:
        """Change something else in the template so that it never gets ready."""
        yield next(self.set_environment(value))
        yield from self._give_up()

    def recover(self) -> Iterator[Step]:
        """Get ready after the deadline: the controllers never stopped trying."""
        yield from self._replace()

    def create_and_fail(self, image: str) -> Iterator[Step]:
        """Create it with an image that never gets ready."""
        yield self._created(image)
        yield from self._give_up()

    def fail_on_quota(self, image: str) -> Iterator[Step]:
        """Create it where no pod may be made, until the deadline is over."""
        yield self._created(image)
        yield from self._begin()
        yield [self._status(updated=0, total=0, available=0, complete=False)]
        self._failed()
        self.item["status"]["conditions"].append(
            {
                "type": "ReplicaFailure",
                "status": "True",
                "reason": "FailedCreate",
                "message": 'pods "churn" is forbidden: exceeded quota: compute',
            }
        )
        yield [self._write()]

    def set_labels(self, **labels: str) -> Iterator[Step]:
        """Set labels under app.kubernetes.io/ before it is created."""
        self.labels |= {f"app.kubernetes.io/{key}": value for key, value in labels.items()}
        yield from ()

    def scale(self, replicas: int) -> Iterator[Step]:
        """Change the number of replicas."""
        self.replicas = replicas
        yield self._spec(lambda spec: spec.update(replicas=replicas))
        current = self._current()
        while len(self.pods) > replicas:
            yield [self._remove_pod(next(iter(self.pods)))]
        while len(self.pods) < replicas:
            yield [self._add_pod(current)]
        for name in list(self.pods):
            if not self._is_ready(name):
                yield [self._ready_pod(name)]
        yield [self._status(updated=replicas, total=replicas, available=replicas, complete=True)]

    def annotate(self, key: str, value: str) -> Iterator[Step]:
        """Annotate it: no new generation, nothing to roll out."""
        self.item["metadata"].setdefault("annotations", {})[key] = value
        yield [self._write()]

    def flap(self) -> Iterator[Step]:
        """Lose a pod's readiness and get it back."""
        n = self.replicas
        name = next(iter(self.pods))
        yield [self._ready_pod(name, ready=False)]
        yield [self._status(updated=n, total=n, available=n - 1, complete=True)]
        yield [self._ready_pod(name)]
        yield [self._status(updated=n, total=n, available=n, complete=True)]

    def delete(self) -> Iterator[Step]:
        """Delete it; the garbage collector follows."""
        yield [Write(self.plural, self.namespace, self.name, None)]
        for name in list(self.holders):
            del self.holders[name]
            yield [Write(self.holder_plural, self.namespace, name, None)]
        for name in list(self.pods):
            yield [self._remove_pod(name)]

    def copy(self) -> Self:
        """Return the play as it is now, to continue from here again."""
        return copy.deepcopy(self)

    @property
    def template(self) -> Object:
        """Return a copy of the template as it is now."""
        return copy.deepcopy(self.item["spec"]["template"])

    # What the kinds differ in.

    def _selector(self) -> Object:
        raise NotImplementedError

    def _begin(self) -> Iterator[Step]:
        """Make the holder of a new template, and name it in the workload."""
        raise NotImplementedError

    def _current(self) -> Object:
        raise NotImplementedError

    def _status(self, *, updated: int, total: int, available: int, complete: bool) -> Write:
        raise NotImplementedError

    def _failed(self) -> Write:
        raise NotImplementedError

    # What they share.

    def _created(self, image: str) -> Step:
        self.generation = 1
        self.item = {
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "uid": self.uid,
                "generation": 1,
                "creationTimestamp": self.created,
                "labels": dict(self.labels),
                "managedFields": [{"manager": "kubectl", "operation": "Update"}],
            },
            "spec": {
                "replicas": self.replicas,
                "selector": self._selector(),
                "template": {
                    "metadata": {"creationTimestamp": None, "labels": dict(self.labels)},
                    "spec": {"containers": [{"name": "server", "image": image}]},
                },
            },
            "status": {},
        }
        return [self._write()]

    def _spec(self, change: Any) -> Step:
        change(self.item["spec"])
        self.generation += 1
        self.item["metadata"]["generation"] = self.generation
        return [self._write()]

    def _write(self) -> Write:
        return Write(self.plural, self.namespace, self.name, copy.deepcopy(self.item))

    def _roll_out(self) -> Iterator[Step]:
        yield from self._begin()
        yield from self._replace()

    def _replace(self) -> Iterator[Step]:
        """Replace pods one by one."""
        holder = self._current()
        wanted = self.replicas
        owned = holder["metadata"]["uid"]
        new = [
            name
            for name, pod in self.pods.items()
            if pod["metadata"]["ownerReferences"][0]["uid"] == owned
        ]
        old = [name for name in self.pods if name not in new]

        def status() -> Step:
            total, ready = len(self.pods), sum(map(self._is_ready, self.pods))
            done = len(new) == total == ready == wanted
            return [self._status(updated=len(new), total=total, available=ready, complete=done)]

        yield status()
        for name in new:
            if not self._is_ready(name):
                yield [self._ready_pod(name)]
                yield status()
        while len(new) < wanted or old:
            if old and not self.surplus:
                yield [self._remove_pod(old.pop(0))]
                yield status()
            if len(new) < wanted:
                write = self._add_pod(holder)
                new.append(write.name)
                yield [write]
                yield status()
                yield [self._ready_pod(write.name)]
                yield status()
            if old and self.surplus:
                yield [self._remove_pod(old.pop(0))]
                yield status()

    def _give_up(self) -> Iterator[Step]:
        yield from self._begin()
        if self.pods and not self.surplus:
            yield [self._remove_pod(min(self.pods, key=self._is_ready))]
        write = self._add_pod(self._current())
        yield [write]
        ready = sum(map(self._is_ready, self.pods))
        yield [self._status(updated=1, total=len(self.pods), available=ready, complete=False)]
        yield [self._failed()]

    def _add_pod(self, holder: Object) -> Write:
        self._pod_number += 1
        name = f"{holder['metadata']['name']}-{self._pod_number:05}"
        template = copy.deepcopy(holder["spec"]["template"])
        container = template["spec"]["containers"][0]
        self.pods[name] = {
            "metadata": {
                **template["metadata"],
                "name": name,
                "namespace": self.namespace,
                "uid": f"{self.uid}-pod-{self._pod_number}",
                "creationTimestamp": f"2021-02-08T20:{self._pod_number // 60:02}:"
                f"{self._pod_number % 60:02}Z",
                "ownerReferences": [
                    {
                        "kind": holder["kind"],
                        "name": holder["metadata"]["name"],
                        "uid": holder["metadata"]["uid"],
                        "controller": True,
                    }
                ],
            },
            "spec": template["spec"],
            "status": {
                "phase": "Pending",
                "conditions": [{"type": "Ready", "status": "False"}],
                "containerStatuses": [{"name": container["name"], "imageID": ""}],
            },
        }
        return self._pod(name)

    def _ready_pod(self, name: str, *, ready: bool = True) -> Write:
        pod = self.pods[name]
        container = pod["spec"]["containers"][0]
        image = container["image"]
        repository = image.partition("@")[0].rpartition(":")[0] or image
        digest = image.partition("@")[2] or digest_of(image, self.build)
        pod["status"] = {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": [
                {"name": container["name"], "imageID": f"{repository}@{digest}", "ready": ready}
            ],
        }
        return self._pod(name)

    def _remove_pod(self, name: str) -> Write:
        del self.pods[name]
        return Write("pods", self.namespace, name, None)

    def _is_ready(self, name: str) -> bool:
        return bool(self.pods[name]["status"]["conditions"][0]["status"] == "True")

    def _pod(self, name: str) -> Write:
        return Write("pods", self.namespace, name, copy.deepcopy(self.pods[name]))

    def _holder(self, name: str) -> Write:
        return Write(self.holder_plural, self.namespace, name, copy.deepcopy(self.holders[name]))
