"""One API for all tests; each has a namespace of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster_real.servers import Api, Kubelet
from tests.cluster_real.workloads import Namespace

_MANIFEST = Path(__file__).parents[2] / "packaging" / "kubernetes" / "cluster-rbac.yaml"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    servers = Api(tmp_path_factory.mktemp("kubernetes"))
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()


@pytest.fixture
def models(api: Api) -> Iterator[Namespace]:
    """A namespace that the manifest's service account may read, with a kubelet."""
    name = f"models-{next(_numbers)}"
    documents = list(yaml.safe_load_all(_MANIFEST.read_text()))
    for document in documents:
        if document["kind"] == "RoleBinding":
            document["metadata"]["namespace"] = name
    namespaces = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": each}}
        for each in ("monitoring", name)
    ]
    api.apply([*namespaces, *documents])
    token = api.token_of("monitoring", "recodex-monitor")
    with Kubelet(api, name):
        yield Namespace(api, name, api.kubeconfig(name, token))
