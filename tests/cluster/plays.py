"""Rollouts step by step, as the controllers of Kubernetes and OpenShift write them.

A play holds a workload with its ReplicaSets (ReplicationControllers) and pods. Each of its
methods yields after every write that the controllers would make, with what was written, in
the order of their code: a Deployment's revision is annotated before its status is brought up
to its generation, a rollback reuses the old ReplicaSet and gives it a new number, ready
pods are seen by the ReplicaSet before the Deployment counts them.

Sources: kubernetes/pkg/controller/deployment (sync.go, progress.go, util), and OpenShift's
deploymentconfig controller.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from tests.cluster.play import TIMED_OUT, Object, Play, Step, Write


class DeploymentPlay(Play):
    """A Deployment with its ReplicaSets."""

    plural = "deployments"
    holder_plural = "replicasets"
    revision_key = "deployment.kubernetes.io/revision"
    hash_label = "pod-template-hash"
    owner_kind = "Deployment"

    def _selector(self) -> Object:
        return {"matchLabels": {"app": self.name}}

    def _current(self) -> Object:
        return self.holders[f"{self.name}-{self._hash()}"]

    def _hash(self) -> str:
        text = json.dumps(self.item["spec"]["template"], sort_keys=True)
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:10]

    def _begin(self) -> Iterator[Step]:
        name = f"{self.name}-{self._hash()}"
        key = self.revision_key
        revisions = [int(h["metadata"]["annotations"][key]) for h in self.holders.values()]
        revision = str(max(revisions, default=0) + 1)
        is_new = True
        if name in self.holders:
            annotations = self.holders[name]["metadata"]["annotations"]
            former = [*annotations.get(f"{key}-history", "").split(","), annotations[key]]
            annotations[f"{key}-history"] = ",".join(filter(None, former))
            annotations[key] = revision
            is_new = False
        else:
            template = self.template
            template["metadata"]["labels"][self.hash_label] = self._hash()
            self.holders[name] = {
                "kind": "ReplicaSet",
                "metadata": {
                    "name": name,
                    "namespace": self.namespace,
                    "uid": f"{self.uid}-rs-{revision}",
                    "labels": template["metadata"]["labels"],
                    "annotations": {key: revision},
                    "ownerReferences": [
                        {
                            "kind": self.owner_kind,
                            "name": self.name,
                            "uid": self.uid,
                            "controller": True,
                        }
                    ],
                },
                "spec": {"replicas": self.replicas, "template": template},
            }
        yield [self._holder(name)]
        # The status, its generation and its conditions are still those of before.
        self.item["metadata"].setdefault("annotations", {})[key] = revision
        yield [self._write()]
        conditions = self.item["status"].get("conditions", [])
        if not is_new and any(each.get("reason") == TIMED_OUT for each in conditions):
            # A new ReplicaSet begins with a condition of its own; here the old one stays at first.
            owned = self._current()["metadata"]["uid"]
            updated = [
                pod["metadata"]["ownerReferences"][0]["uid"] == owned for pod in self.pods.values()
            ]
            ready = sum(map(self._is_ready, self.pods))
            self._status(
                updated=sum(updated), total=len(self.pods), available=ready, complete=False
            )
            self.item["status"]["conditions"] = conditions
            yield [self._write()]

    def _status(self, *, updated: int, total: int, available: int, complete: bool) -> Write:
        reason = "NewReplicaSetAvailable" if complete else "ReplicaSetUpdated"
        self.item["status"] = {
            "observedGeneration": self.generation,
            "replicas": total,
            "updatedReplicas": updated,
            "readyReplicas": available,
            "availableReplicas": available,
            "conditions": [
                {"type": "Available", "status": "True" if available else "False"},
                {"type": "Progressing", "status": "True", "reason": reason, "message": reason},
            ],
        }
        return self._write()

    def _failed(self) -> Write:
        name = self._current()["metadata"]["name"]
        self.item["status"]["conditions"][1].update(
            status="False",
            reason=TIMED_OUT,
            message=f'ReplicaSet "{name}" has timed out progressing.',
            lastTransitionTime=f"2021-02-{self.day:02}T09:{self.generation:02}:00Z",
        )
        return self._write()


class DeploymentConfigPlay(Play):
    """A DeploymentConfig with its ReplicationControllers."""

    plural = "deploymentconfigs"
    holder_plural = "replicationcontrollers"

    def _selector(self) -> Object:
        return {"app": self.name}

    def _created(self, image: str) -> Step:
        step = super()._created(image)
        self.item["status"] = {"latestVersion": 0}
        return [self._write()] if step else []

    def _current(self) -> Object:
        return self.holders[f"{self.name}-{self.item['status']['latestVersion']}"]

    def _begin(self) -> Iterator[Step]:
        status = self.item["status"]
        # The instantiation counts up the version, which makes a generation, too.
        status["latestVersion"] = version = status["latestVersion"] + 1
        self.generation += 1
        self.item["metadata"]["generation"] = self.generation
        yield [self._write()]
        name = f"{self.name}-{version}"
        template = self.template
        template["metadata"]["labels"] |= {"deployment": name, "deploymentconfig": self.name}
        template["metadata"].setdefault("annotations", {}).update(
            {
                "openshift.io/deployment-config.name": self.name,
                "openshift.io/deployment-config.latest-version": str(version),
                "openshift.io/deployment.name": name,
            }
        )
        self.holders[name] = {
            "kind": "ReplicationController",
            "metadata": {
                "name": name,
                "namespace": self.namespace,
                "uid": f"{self.uid}-rc-{version}",
                "labels": {"openshift.io/deployment-config.name": self.name},
                "annotations": {
                    "openshift.io/deployment-config.name": self.name,
                    "openshift.io/deployment-config.latest-version": str(version),
                },
                "ownerReferences": [
                    {
                        "kind": "DeploymentConfig",
                        "name": self.name,
                        "uid": self.uid,
                        "controller": True,
                    }
                ],
            },
            "spec": {"replicas": 0, "template": template},
        }
        yield [self._holder(name)]

    def _status(self, *, updated: int, total: int, available: int, complete: bool) -> Write:
        status = self.item["status"]
        name = f"{self.name}-{status['latestVersion']}"
        progressing = {
            "type": "Progressing",
            "status": "True",
            "reason": "ReplicationControllerUpdated",
            "message": f'replication controller "{name}" is progressing',
        }
        if complete:
            progressing["reason"] = "NewReplicationControllerAvailable"
            progressing["message"] = f'replication controller "{name}" successfully rolled out'
        self.item["status"] = {
            "latestVersion": status["latestVersion"],
            "observedGeneration": self.generation,
            "replicas": total,
            "updatedReplicas": updated,
            "readyReplicas": available,
            "availableReplicas": available,
            "conditions": [{"type": "Available", "status": "True"}, progressing],
        }
        return self._write()

    def _failed(self) -> Write:
        name = f"{self.name}-{self.item['status']['latestVersion']}"
        self.item["status"]["conditions"][1].update(
            status="False",
            reason="ProgressDeadlineExceeded",
            message=f'replication controller "{name}" has failed progressing',
            lastTransitionTime=f"2021-02-{self.day:02}T09:{self.generation:02}:00Z",
        )
        return self._write()


class StatefulSetPlay(Play):
    """A StatefulSet with its pods; its ControllerRevisions are of no concern."""

    plural = "statefulsets"
    holder_plural = "controllerrevisions"
    surplus = False

    def _selector(self) -> Object:
        return {"matchLabels": {"app": self.name}}

    def _hash(self) -> str:
        text = json.dumps(self.item["spec"]["template"], sort_keys=True)
        return f"{self.name}-{hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:10]}"

    def _begin(self) -> Iterator[Step]:
        template = self.template
        template["metadata"]["labels"]["controller-revision-hash"] = self._hash()
        self.holders[self._hash()] = {
            # Its pods are its own.
            "kind": "StatefulSet",
            "metadata": {"name": self.name, "uid": f"{self.uid}-{self._hash()}"},
            "spec": {"template": template},
        }
        yield [self._write()]

    def _current(self) -> Object:
        return self.holders[self._hash()]

    def delete(self) -> Iterator[Step]:
        self.holders.clear()  # they were never written
        yield from super().delete()

    def _status(self, *, updated: int, total: int, available: int, complete: bool) -> Write:
        new = self._hash()
        self.item["status"] = {
            "observedGeneration": self.generation,
            "replicas": total,
            "updatedReplicas": updated,
            "readyReplicas": available,
            "availableReplicas": available,
            # When all pods are ready, the revision that is rolled out becomes the current one.
            "currentRevision": new if complete else self.item["status"].get("currentRevision", new),
            "updateRevision": new,
        }
        return self._write()

    def _failed(self) -> Write:
        # The controller never gives up.
        return self._write()


class DaemonSetPlay(StatefulSetPlay):
    """A DaemonSet with a pod for each of this many nodes."""

    plural = "daemonsets"

    def _current(self) -> Object:
        return {**super()._current(), "kind": "DaemonSet"}

    def _status(self, *, updated: int, total: int, available: int, complete: bool) -> Write:
        self.item["status"] = {
            "observedGeneration": self.generation,
            "desiredNumberScheduled": self.replicas,
            "currentNumberScheduled": total,
            "updatedNumberScheduled": updated,
            "numberReady": available,
            "numberAvailable": available,
        }
        return self._write()


class RolloutPlay(DeploymentPlay):
    """A Rollout of Argo Rollouts: the new ReplicaSet is stable when it has taken over."""

    plural = "rollouts"
    revision_key = "rollout.argoproj.io/revision"
    hash_label = "rollouts-pod-template-hash"
    owner_kind = "Rollout"

    def _status(self, *, updated: int, total: int, available: int, complete: bool) -> Write:
        before = self.item["status"].get("stableRS", "")
        self.item["status"] = {
            "observedGeneration": str(self.generation),
            "phase": "Healthy" if complete else "Progressing",
            "replicas": total,
            "updatedReplicas": updated,
            "readyReplicas": available,
            "availableReplicas": available,
            "currentPodHash": self._hash(),
            "stableRS": self._hash() if complete else before,
            "conditions": [
                {"type": "Available", "status": "True"},
                {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"},
            ],
        }
        return self._write()

    def _failed(self) -> Write:
        write = super()._failed()
        self.item["status"].update(phase="Degraded", message="ProgressDeadlineExceeded: no pods")
        return self._write() if write else write
