"""packaging/kubernetes: valid for Kubernetes, valid for the daemon, and each fitting the other."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from monitor.tokens import Role, TokenFile
from tests.packaging.kustomize import Object, objects, pod_template, render
from tests.packaging.workloads import (
    ALL_WORKLOADS,
    KUBERNETES,
    OPENSHIFT,
    PACKAGING,
    PORTS,
    RENDERED,
    SECRETS,
    SERVING,
    WORKLOADS,
    component,
    container_of,
    loaded,
    name_of,
    of_kind,
)

# The oldest one that knows all that is used, and the newest that there are schemas of.
VERSIONS = ("1.30", str(kubernetes_validate.latest_version()))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("found", RENDERED, ids=name_of)
def test_every_object_is_valid(found: Object, version: str) -> None:
    kubernetes_validate.validate(found, version, strict=True)


def test_openshift_differs_by_routes_and_by_groups_alone() -> None:
    plain = {(each["kind"], name_of(each)): each for each in RENDERED}
    routes = {each["metadata"]["name"]: each for each in objects(OPENSHIFT / "routes.yaml")}
    for each in render(OPENSHIFT):
        if each["kind"] == "Route":
            assert each == routes.pop(name_of(each))
            (service,) = [
                found
                for found in of_kind(RENDERED, "Service")
                if name_of(found) == each["spec"]["to"]["name"]
            ]
            ports = [port["name"] for port in service["spec"]["ports"]]
            assert each["spec"]["port"]["targetPort"] in ports
            assert each["spec"]["tls"]["termination"] == "edge"
            continue
        before = plain.pop((each["kind"], name_of(each)))
        if each["kind"] in WORKLOADS:
            kubernetes_validate.validate(each, VERSIONS[-1], strict=True)
            context = pod_template(each)["spec"]["securityContext"]
            assert not context.keys() & {"fsGroup", "runAsUser", "runAsGroup"}
            context["fsGroup"] = pod_template(before)["spec"]["securityContext"]["fsGroup"]
        assert each == before
    assert not plain
    assert not routes


# To make sure of the renderer in tests/packaging; it needs no cluster.
@pytest.mark.integration_test
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl to compare with")
@pytest.mark.parametrize("directory", [KUBERNETES, OPENSHIFT], ids=lambda path: path.name)
def test_kubectl_renders_the_same(directory: Path) -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", str(directory)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    ours, theirs = render(directory), list(yaml.safe_load_all(done.stdout))

    def comparable(found: list[Object]) -> dict[tuple[str, str], Object]:
        # Only the digests in the names of config maps are made in another way.
        text = yaml.safe_dump(found)
        for each in of_kind(found, "ConfigMap"):
            name = name_of(each)
            text = text.replace(name, name.rpartition("-")[0])
        return {(each["kind"], name_of(each)): each for each in yaml.safe_load(text)}

    assert comparable(ours) == comparable(theirs)


def test_what_refers_to_something_refers_to_what_is_there() -> None:
    names = {kind: {name_of(each) for each in of_kind(RENDERED, kind)} for kind in (
        "ConfigMap", "ServiceAccount", "PersistentVolumeClaim", "Service",
    )}  # fmt: skip
    names["ServiceAccount"].add("default")
    for workload in ALL_WORKLOADS:
        spec = pod_template(workload)["spec"]
        container = container_of(workload)
        volumes = {each["name"]: each for each in spec["volumes"]}
        claims = {
            each["metadata"]["name"] for each in workload["spec"].get("volumeClaimTemplates", [])
        }
        assert {each["name"] for each in container["volumeMounts"]} == volumes.keys() | claims
        for volume in volumes.values():
            if "configMap" in volume:
                assert volume["configMap"]["name"] in names["ConfigMap"]
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert claim in names["PersistentVolumeClaim"]
            if "secret" in volume:
                assert volume["secret"]["secretName"] == "recodex-monitor"
        for source in container["envFrom"]:
            assert source["configMapRef"]["name"] in names["ConfigMap"]
        assert spec.get("serviceAccountName", "default") in names["ServiceAccount"]
        if workload["kind"] == "StatefulSet":
            assert workload["spec"]["serviceName"] in names["Service"]
    selectors = [
        (each, each["spec"]["selector"].get("matchLabels", each["spec"]["selector"]))
        for each in of_kind(RENDERED, "Service", "PodDisruptionBudget", "StatefulSet", "Deployment")
    ] + [
        (each, each["spec"]["podSelector"]["matchLabels"])
        for each in of_kind(RENDERED, "NetworkPolicy")
    ]
    for each, selector in selectors:
        chosen = [
            workload
            for workload in SERVING
            if selector.items() <= pod_template(workload)["metadata"]["labels"].items()
        ]
        assert [component(workload) for workload in chosen] == [component(each)], name_of(each)
    for service in of_kind(RENDERED, "Service"):
        (workload,) = [each for each in SERVING if component(each) == component(service)]
        ports = {port["name"] for port in container_of(workload)["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for each in RENDERED:
        if each["kind"] not in ("Namespace", "ClusterRole", "RoleBinding"):
            assert each["metadata"]["namespace"] == "monitoring", name_of(each)


@pytest.mark.parametrize("workload", ALL_WORKLOADS, ids=name_of)
def test_pods_may_do_nothing_that_they_need_not(workload: Object) -> None:
    spec, container = pod_template(workload)["spec"], container_of(workload)
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}
    watcher = component(workload) == "cluster"
    assert spec.get("automountServiceAccountToken", True) is watcher
    assert ("serviceAccountName" in spec) is watcher
    assert container["resources"]["limits"].keys() == {"cpu", "memory"}
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    for volume in spec["volumes"]:
        if "secret" in volume:
            assert volume["secret"]["defaultMode"] == 0o440
        if "emptyDir" in volume:
            assert "sizeLimit" in volume["emptyDir"]
    text = yaml.safe_dump(workload)
    assert "secretKeyRef" not in text
    assert "secretRef" not in text


@pytest.mark.parametrize("workload", ALL_WORKLOADS, ids=name_of)
def test_each_config_is_one_that_the_daemon_takes(workload: Object, secrets: Path) -> None:
    config = loaded(workload, secrets)
    parts = {
        name
        for name in ("relay", "probes", "aggregation", "cluster", "logs")
        if getattr(config, name) is not None
    }
    kind = component(workload)
    expected = {
        "producer": {"probes"},
        "consumer": {"aggregation"},
        "web": set(),
        "database": set(),
    }
    assert parts == expected.get(kind, {kind})
    # Kubernetes keeps what goes to stderr; a file would only fill a volume.
    assert config.logger.file == "/dev/null"
    assert (config.database.url is None) is (kind == "relay")
    assert (config.kafka is not None) is (kind in {"producer", "consumer", "cluster"})
    assert config.api is not None
    assert config.api.uri == ("*", PORTS["http"])
    assert config.api.tokens_file == str(secrets / "tokens.yml")


@pytest.mark.parametrize("workload", SERVING, ids=name_of)
def test_ports_and_probes_are_where_the_daemon_listens(workload: Object, secrets: Path) -> None:
    config, container = loaded(workload, secrets), container_of(workload)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    listening = {"http": PORTS["http"]}
    if config.relay is not None:
        listening |= {"websocket": config.websocket_uri[1], "zeromq": config.zeromq_uri[1]}
    assert ports == listening
    assert ports.items() <= PORTS.items()
    for probe, path in (
        ("startupProbe", "/healthz"),
        ("livenessProbe", "/healthz"),
        ("readinessProbe", "/readyz"),
    ):
        assert container[probe]["httpGet"] == {"path": path, "port": "http"}
    # A drain takes 5 s at most, after the pause in which Services learn of the end.
    pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    grace = pod_template(workload)["spec"]["terminationGracePeriodSeconds"]
    assert grace >= pause + 10
    served = [
        each for each in of_kind(RENDERED, "Service") if component(each) == component(workload)
    ]
    reached = any("clusterIP" not in each["spec"] for each in served)
    assert (pause > 0) is reached


@pytest.mark.parametrize("workload", SERVING, ids=name_of)
def test_what_may_run_twice_does_and_what_must_not_does_not(workload: Object) -> None:
    spec, kind = workload["spec"], component(workload)
    budgets = [each for each in of_kind(RENDERED, "PodDisruptionBudget") if component(each) == kind]
    if kind in ("cluster", "relay"):
        assert spec["replicas"] == 1
        assert not budgets  # it would only keep nodes from being drained
    else:
        assert spec["replicas"] > 1
        assert len(budgets) == 1
    if kind == "cluster":
        assert spec["strategy"] == {"type": "Recreate"}
    # The spool is the outbox, the relay's histories survive: these have volumes.
    durable = "volumeClaimTemplates" in spec or any(
        "persistentVolumeClaim" in volume for volume in pod_template(workload)["spec"]["volumes"]
    )
    assert durable is (kind in {"producer", "cluster", "relay"})


def test_every_pod_writes_only_where_a_volume_is() -> None:
    for workload in ALL_WORKLOADS:
        mounts = {each["mountPath"]: each for each in container_of(workload)["volumeMounts"]}
        assert mounts.keys() == {
            "/etc/recodex/monitor", str(SECRETS), "/var/lib/recodex-monitor", "/tmp",
        }  # fmt: skip
        assert mounts["/etc/recodex/monitor"]["readOnly"]
        assert mounts[str(SECRETS)]["readOnly"]


@pytest.mark.integration_test
def test_the_first_token_is_made_as_the_page_says(tmp_path: Path) -> None:
    page = (PACKAGING.parent / "docs" / "deploy" / "kubernetes.md").read_text()
    (line,) = [each.strip() for each in page.splitlines() if "token create" in each]
    command = line.replace("recodex-monitor", f"{sys.executable} {PACKAGING.parent / 'main.py'}", 1)
    done = subprocess.run(
        ["bash", "-c", command.replace("config/", f"{KUBERNETES}/config/")],
        env={"PATH": "/usr/bin:/bin", "PWD": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0, "there is no folder secrets yet"
    (tmp_path / "secrets").mkdir()
    done = subprocess.run(done.args, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    # What --from-file=secrets/ takes: no more than is meant to be there.
    assert [file.name for file in (tmp_path / "secrets").iterdir()] == ["tokens.yml"]
    token = done.stdout.splitlines()[-1]
    found = TokenFile(tmp_path / "secrets" / "tokens.yml").read().identify(token)
    assert found is not None
    assert found.role is Role.ADMIN
