"""As much of kustomize as packaging/kubernetes and packaging/openshift use, and no more.

Files, generated config maps with their content in the name, images, and JSON patches; whatever
else a kustomization.yaml says is an error. Where kubectl is installed a test compares the two.
Source: kubectl.docs.kubernetes.io, the kustomization file.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

__all__ = ["Object", "objects", "pod_template", "render"]

Object = dict[str, Any]

_KNOWN = {"apiVersion", "kind", "resources", "images", "configMapGenerator", "patches"}
_WORKLOADS = ("StatefulSet", "Deployment", "Job")


def objects(file: Path) -> list[Object]:
    """Return the objects of a YAML file, which must have no key twice."""
    return [found for found in yaml.load_all(file.read_text(), Loader=_Strict) if found]


def render(directory: Path) -> list[Object]:
    """Return what ``kubectl kustomize DIRECTORY`` prints, in the order of the resources."""
    (kustomization,) = objects(directory / "kustomization.yaml")
    assert set(kustomization) <= _KNOWN, set(kustomization) - _KNOWN
    found: list[Object] = []
    for name in kustomization["resources"]:
        path = directory / name
        found += render(path) if path.is_dir() else objects(path)
    maps = [_config_map(directory, each) for each in kustomization.get("configMapGenerator", [])]
    _rename(found, {name: made["metadata"]["name"] for name, made in maps})
    found += [made for _, made in maps]
    for image in kustomization.get("images", []):
        assert set(image) <= {"name", "newName", "newTag"}, image
        for container in _containers(found):
            if container["image"] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"
    for patch in kustomization.get("patches", []):
        _patch(found, patch)
    return found


def pod_template(workload: Object) -> Object:
    """Return the pods' metadata and spec of a workload."""
    template: Object = workload["spec"]["template"]
    return template


class _Strict(yaml.SafeLoader):
    """Refuses duplicate keys, as the API server does."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"duplicate key: {keys}"
        return super().construct_mapping(node, deep=deep)


def _config_map(directory: Path, generator: Object) -> tuple[str, Object]:
    assert set(generator) <= {"name", "namespace", "files", "envs"}, generator
    data = {}
    for entry in generator.get("files", []):
        key, _, file = entry.partition("=")
        data[key] = (directory / file).read_text()
    for file in generator.get("envs", []):
        for line in (directory / file).read_text().splitlines():
            if line and not line.startswith("#"):
                key, _, data[key] = line.partition("=")
    digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:10]
    name = generator["name"]
    metadata = {"name": f"{name}-{digest}", "namespace": generator["namespace"]}
    return name, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _pods(found: list[Object]) -> Iterator[Object]:
    for each in found:
        if each["kind"] in _WORKLOADS:
            yield pod_template(each)["spec"]


def _containers(found: list[Object]) -> Iterator[Object]:
    for pod in _pods(found):
        yield from pod["containers"]


def _rename(found: list[Object], names: dict[str, str]) -> None:
    for pod in _pods(found):
        for volume in pod["volumes"]:
            if "configMap" in volume:
                of = volume["configMap"]
                of["name"] = names.get(of["name"], of["name"])
        for container in pod["containers"]:
            for source in container.get("envFrom", []):
                of = source["configMapRef"]
                of["name"] = names.get(of["name"], of["name"])


def _patch(found: list[Object], patch: Object) -> None:
    assert set(patch) == {"target", "patch"}, patch
    assert set(patch["target"]) == {"kind"}, patch
    targets = [each for each in found if each["kind"] == patch["target"]["kind"]]
    assert targets, f"nothing is patched: {patch}"
    for target in targets:
        for step in yaml.safe_load(patch["patch"]):
            *path, last = step["path"].strip("/").split("/")
            place: Any = target
            for key in path:
                place = place[key]
            if step["op"] == "remove":
                del place[last]
            else:
                assert step["op"] == "add", step
                place[last] = copy.deepcopy(step["value"])
