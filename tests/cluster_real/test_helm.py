"""packaging/helm on a real API server: install, upgrade, rollback and uninstall, as documented."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster_real.servers import Api, Kubelet
from tests.cluster_real.test_manifests import refusals
from tests.packaging.helm import CHART, helm
from tests.waiting import wait_for

pytestmark = [pytest.mark.integration_test, pytest.mark.timeout(300)]

SPACE = "charted"


def names(api: Api, path: str) -> set[str]:
    return {item["metadata"]["name"] for item in api.call("GET", path)["items"]}


@pytest.fixture
def run(api: Api, tmp_path: Path) -> Callable[..., str]:
    """Run helm as the administrator, with a home of its own."""
    environ = {"KUBECONFIG": str(api.admin), "HOME": str(tmp_path)}
    return lambda *arguments: helm(*arguments, f"--namespace={SPACE}", environ=environ)


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    """The chart without the versions that it asks for: a server built from modules has none."""
    copied = shutil.copytree(CHART, tmp_path / "chart")
    text = (copied / "Chart.yaml").read_text()
    (copied / "Chart.yaml").write_text(re.sub(r"(?m)^kubeVersion:.*\n", "", text))
    return copied


def test_a_release_is_installed_upgraded_rolled_back_and_uninstalled(
    api: Api, run: Callable[..., str], chart: Path, tmp_path: Path
) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    api.apply(
        [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, **more}}
            for name, more in (("models", {}), (SPACE, {"labels": labels}))
        ]
    )
    values = tmp_path / "values.yaml"
    values.write_text("cluster: {namespaces: [models]}\n")
    apps, core = f"/apis/apps/v1/namespaces/{SPACE}", f"/api/v1/namespaces/{SPACE}"
    jobs = f"/apis/batch/v1/namespaces/{SPACE}/jobs"

    def web() -> dict[str, Any]:
        return api.call("GET", f"{apps}/deployments/recodex-monitor-web")

    def image() -> str:
        return str(web()["spec"]["template"]["spec"]["containers"][0]["image"])

    def digest(component: str) -> str:
        item = api.call("GET", f"{apps}/deployments/recodex-monitor-{component}")
        return str(item["spec"]["template"]["metadata"]["annotations"]["checksum/config"])

    def stands() -> bool:
        status = web().get("status", {})
        current = status.get("observedGeneration") == web()["metadata"]["generation"]
        counts = [status.get(key) for key in ("replicas", "updatedReplicas", "availableReplicas")]
        return current and counts == [web()["spec"]["replicas"]] * 3

    with Kubelet(api, SPACE):
        said = run("install", "recodex-monitor", chart, "--values", values)
        assert "STATUS: deployed" in said
        assert "kubectl -n charted port-forward service/recodex-monitor-web 9000" in said
        wait_for(stands, "the web pods", limit_s=60)
        assert names(api, jobs) == {"recodex-monitor-database-1"}
        assert names(api, f"{core}/services") == {
            f"recodex-monitor-{component}" for component in ("producer", "logs", "web", "relay")
        }
        first, consumer = image(), digest("consumer")
        rights = api.call(
            "GET", "/apis/rbac.authorization.k8s.io/v1/namespaces/models/rolebindings"
        )
        assert {item["metadata"]["name"] for item in rights["items"]} == {"recodex-monitor-cluster"}

        values.write_text(
            "cluster: {namespaces: [models]}\nimage: {tag: next}\n"
            "web: {replicas: 3, config: {api: {max_clients: 9}}}\n"
        )
        run("upgrade", "recodex-monitor", chart, "--values", values)
        wait_for(stands, "the new web pods", limit_s=60)
        assert image() == f"{first.rpartition(':')[0]}:next"
        assert web()["spec"]["replicas"] == 3
        assert digest("consumer") == consumer
        assert names(api, jobs) == {"recodex-monitor-database-2"}

        run("rollback", "recodex-monitor")
        wait_for(stands, "the former web pods", limit_s=60)
        assert (image(), web()["spec"]["replicas"]) == (first, 2)
        assert names(api, jobs) == {"recodex-monitor-database-1"}
        assert refusals(api, SPACE) == []

        run("uninstall", "recodex-monitor")
        wait_for(lambda: not names(api, f"{apps}/deployments"), "the end of the release")
    assert not names(api, f"{apps}/statefulsets")
    role = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
    assert "recodex-monitor-cluster" not in names(api, role)


def test_the_server_refuses_nothing_of_any_example(
    api: Api, run: Callable[..., str], chart: Path
) -> None:
    api.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}}])
    for file in sorted((CHART / "examples").glob("*.yaml")):
        if file.stem != "openshift":  # there are no Routes here
            run("install", file.stem, chart, "--values", file, "--dry-run=server")
