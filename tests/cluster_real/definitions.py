"""Custom resources of serving platforms, and what their controllers write of them.

The definitions have the groups, names and fields of the published ones, as far as they matter here:
Argo Rollouts (argoproj.io), KServe (serving.kserve.io), Knative Serving (serving.knative.dev), and
one of a platform that only the config knows. Their controllers need images, networks and gateways;
:class:`Resource` writes the status in their place, and the API server checks it.
"""

from __future__ import annotations

from typing import Any

from tests.cluster.play import LABELS
from tests.cluster_real.servers import Api
from tests.cluster_real.workloads import Namespace, Object
from tests.waiting import wait_for

__all__ = ["INFERENCE_SERVICE", "KNATIVE_SERVICE", "MODEL_SERVER", "ROLLOUT", "Resource", "define"]

_ANY: Object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_TEXT, _NUMBER = {"type": "string"}, {"type": "integer", "format": "int32"}
_LONG = {"type": "integer", "format": "int64"}
_CONDITIONS: Object = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["type", "status"],
        "properties": {
            **dict.fromkeys(("type", "status", "reason", "message", "severity"), _TEXT),
            **dict.fromkeys(("lastTransitionTime", "lastUpdateTime"), _TEXT),
        },
    },
}
_TRAFFIC: Object = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            **dict.fromkeys(("revisionName", "tag", "url"), _TEXT),
            **{"latestRevision": {"type": "boolean"}, "percent": _LONG},
        },
    },
}


def _definition(group: str, version: str, kind: str, plural: str, **parts: Object) -> Object:
    """Return a definition; ``parts`` are the properties of the spec and of the status."""
    schema = {name: {"type": "object", "properties": of} for name, of in parts.items()}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [
                {
                    "name": version,
                    **{"served": True, "storage": True},
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": schema}},
                }
            ],
        },
    }


ROLLOUT = _definition(
    *("argoproj.io", "v1alpha1", "Rollout", "rollouts"),
    spec={
        **dict.fromkeys(("selector", "template", "strategy", "workloadRef"), _ANY),
        **dict.fromkeys(("replicas", "revisionHistoryLimit", "progressDeadlineSeconds"), _NUMBER),
        "paused": {"type": "boolean"},
    },
    status={
        # A text since version 1.0.
        **dict.fromkeys(("observedGeneration", "currentPodHash", "stableRS"), _TEXT),
        **dict.fromkeys(("phase", "message"), _TEXT),
        **dict.fromkeys(
            ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), _NUMBER
        ),
        **{"abort": {"type": "boolean"}, "conditions": _CONDITIONS},
    },
)
INFERENCE_SERVICE = _definition(
    *("serving.kserve.io", "v1beta1", "InferenceService", "inferenceservices"),
    spec=dict.fromkeys(("predictor", "transformer", "explainer"), _ANY),
    status={
        **{"observedGeneration": _LONG, "conditions": _CONDITIONS, "url": _TEXT},
        "components": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "properties": {
                    **dict.fromkeys(("latestReadyRevision", "latestRolledoutRevision"), _TEXT),
                    "traffic": _TRAFFIC,
                },
            },
        },
        "modelStatus": {
            "type": "object",
            "properties": {
                "transitionStatus": {
                    "type": "string",
                    "enum": ["", "UpToDate", "InProgress", "BlockedByFailedLoad", "InvalidSpec"],
                },
                **dict.fromkeys(("states", "copies", "lastFailureInfo"), _ANY),
            },
        },
    },
)
KNATIVE_SERVICE = _definition(
    *("serving.knative.dev", "v1", "Service", "services"),
    spec={"template": _ANY, "traffic": _TRAFFIC},
    status={
        **{"observedGeneration": _LONG, "conditions": _CONDITIONS, "traffic": _TRAFFIC},
        **dict.fromkeys(("latestCreatedRevisionName", "latestReadyRevisionName", "url"), _TEXT),
    },
)
MODEL_SERVER = _definition(
    *("ml.example.org", "v1", "ModelServer", "modelservers"),
    spec={"model": _ANY},
    status={"observedGeneration": _LONG, "conditions": _CONDITIONS},
)


def define(api: Api) -> None:
    """Add the definitions, and wait until the API server serves them."""
    definitions = (ROLLOUT, INFERENCE_SERVICE, KNATIVE_SERVICE, MODEL_SERVER)
    api.apply(definitions)

    def are_served() -> bool:
        groups = {group["name"] for group in api.call("GET", "/apis")["groups"]}
        return all(each["spec"]["group"] in groups and _served(api, each) for each in definitions)

    wait_for(are_served, "the custom resources")


def _served(api: Api, definition: Object) -> bool:
    name = definition["metadata"]["name"]
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
    conditions = api.call("GET", path).get("status", {}).get("conditions", [])
    return {"type": "Established", "status": "True"}.items() <= next(
        (each.items() for each in conditions if each["type"] == "Established"), {}.items()
    )


class Resource:
    """A custom resource; :meth:`reach` writes what its controller writes at its end."""

    def __init__(self, namespace: Namespace, definition: Object, name: str) -> None:
        spec = definition["spec"]
        self._api = namespace.api
        self._group = f"{spec['group']}/{spec['versions'][0]['name']}"
        self._kind = spec["names"]["kind"]
        self._name = name
        self._all = f"/apis/{self._group}/{namespace.path}/{spec['names']['plural']}"
        self.path = f"{self._all}/{name}"

    def create(self, **spec: Any) -> None:
        metadata = {"name": self._name, "labels": LABELS}
        item = {"apiVersion": self._group, "kind": self._kind, "metadata": metadata, "spec": spec}
        self._api.call("POST", f"{self._all}?fieldValidation=Strict", item)

    def change(self, **spec: Any) -> None:
        self._patch(self.path, {"spec": spec})

    def annotate(self, key: str, value: str) -> None:
        self._patch(self.path, {"metadata": {"annotations": {key: value}}})

    def reach(self, **status: Any) -> None:
        """Write the status of the current generation."""
        generation: Any = self._api.call("GET", self.path)["metadata"]["generation"]
        if self._kind == "Rollout":
            generation = str(generation)
        status = {"observedGeneration": generation, **status}
        self._patch(f"{self.path}/status", {"status": status})

    def delete(self) -> None:
        self._api.call("DELETE", self.path)

    def _patch(self, path: str, change: Object) -> None:
        merge = "application/merge-patch+json"
        self._api.call("PATCH", f"{path}?fieldValidation=Strict", change, of=merge)
