"""packaging/helm: the same objects as packaging/kubernetes, and values that are checked."""

from __future__ import annotations

import copy
import itertools
import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from monitor.cluster.kinds import KINDS, PODS
from tests.packaging.helm import CHART, EXAMPLES, OLDEST, helm, helms, merged, template, values_of
from tests.packaging.kustomize import Object, pod_template
from tests.packaging.workloads import RENDERED, WORKLOADS, config_map, loaded, name_of, of_kind

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS = values_of(CHART / "values.yaml")
FILES = pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
# Helm's own, by which it finds what it has made.
HELMS = {"app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "helm.sh/chart"}


def check(values: dict[str, Any]) -> None:
    jsonschema.Draft7Validator(SCHEMA).validate(values)


def test_the_schema_is_one_and_the_defaults_fit_it() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    check(DEFAULTS)


@FILES
def test_each_example_fits_the_schema_and_changes_something(file: Path) -> None:
    values = merged(DEFAULTS, values_of(file))
    check(values)
    assert values != DEFAULTS


def test_the_schema_knows_the_same_keys_as_the_values() -> None:
    def keys(schema: dict[str, Any], values: Any) -> None:
        schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]] if (
            "$ref" in schema
        ) else schema  # fmt: skip
        if schema.get("additionalProperties") is False and "resources" in schema["properties"]:
            assert schema["properties"].keys() - {"global"} == values.keys()
        for key, value in values.items():
            if isinstance(value, dict) and key in schema.get("properties", {}):
                keys(schema["properties"][key], value)

    assert SCHEMA["properties"].keys() - {"global"} == DEFAULTS.keys()
    keys(SCHEMA, DEFAULTS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"producers": {}},
        {"producer": {"replicas": "two"}},
        {"producer": {"replica": 2}},
        {"producer": {"replicas": -1}},
        {"image": {"tag": 2.0}},
        {"settings": {"kafkaServer": "kafka"}},
        {"cluster": {"kinds": ["Deploymnet"]}},
        {"cluster": {"namespaces": ["Models"]}},
        {"relay": {"storage": "1 GB"}},
        {"ingress": {"hosts": {"consumer": "a.example.org"}}},
    ],
    ids=json.dumps,
)
def test_a_value_that_is_wrong_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check(merged(DEFAULTS, wrong))


def test_the_chart_has_the_version_of_the_package() -> None:
    chart = values_of(CHART / "Chart.yaml")
    (image,) = [
        each["image"]
        for each in pod_template(of_kind(RENDERED, "Job")[0])["spec"]["containers"]
    ]  # fmt: skip
    assert image == f"{DEFAULTS['image']['repository']}:{chart['appVersion']}"
    assert chart["version"] == chart["appVersion"]


def without_helms(found: Any) -> Any:
    """Drop what only Helm needs: labels, and the digest of the config among the annotations."""
    if isinstance(found, list):
        return [without_helms(each) for each in found]
    if not isinstance(found, dict):
        return found
    kept = {key: without_helms(value) for key, value in found.items() if key not in HELMS}
    kept.pop("app.kubernetes.io/version", None)
    if "checksum/config" in (kept.get("annotations") or {}):
        del kept["annotations"]
    return kept


def comparable(found: list[Object]) -> dict[tuple[str, str], Object]:
    """Return the objects by kind and name, without what the two ways name differently."""
    text = json.dumps(found)
    for each in of_kind(found, "ConfigMap"):
        # Kustomize adds a digest to the name.
        plain = name_of(each).split("-")[:3]
        text = text.replace(json.dumps(name_of(each)), json.dumps("-".join(plain)))
    text = text.replace('"recodex-monitor-database-1"', '"recodex-monitor-database"')
    objects = {(each["kind"], name_of(each)): each for each in json.loads(text)}
    for (kind, _), each in objects.items():
        if kind in {"ServiceAccount", "ClusterRole", "RoleBinding", "ConfigMap"}:
            each["metadata"].pop("labels", None)
        if kind == "ClusterRole":
            each["rules"].sort(key=json.dumps)
        if kind == "ConfigMap":
            each["data"].pop("config.yml", None)
    return objects


@pytest.mark.integration_test
def test_the_defaults_make_the_objects_of_the_kustomization(secrets: Path) -> None:
    made = template()
    ours = comparable([each for each in copy.deepcopy(RENDERED) if each["kind"] != "Namespace"])
    assert comparable(without_helms(made)) == ours
    # The texts of the configs differ, not what the daemon makes of them.
    for mine, theirs in zip(
        sorted(of_kind(RENDERED, *WORKLOADS), key=name_of),
        sorted(of_kind(made, *WORKLOADS), key=name_of),
        strict=True,
    ):
        assert loaded(mine, secrets) == loaded(theirs, secrets, made), name_of(mine)


@pytest.mark.integration_test
def test_helm_finds_nothing_to_complain_about() -> None:
    lint = ("lint", "--strict", f"--kube-version={OLDEST}", CHART)
    every = ((), *(("--values", file) for file in EXAMPLES))
    for program, arguments in itertools.product(helms(), every):
        said = helm(*lint, *arguments, program=program)
        assert "1 chart(s) linted, 0 chart(s) failed" in said
        # An icon is for catalogues.
        assert [line for line in said.splitlines() if line.startswith("[")] == [
            "[INFO] Chart.yaml: icon is recommended"
        ]


@pytest.mark.integration_test
def test_helm_refuses_what_the_schema_does_not_know() -> None:
    wrong = ("template", CHART, f"--kube-version={OLDEST}", "--set=producer.replicaz=3")
    for program in helms():
        assert "replicaz" in helm(*wrong, program=program, fails=True)


@pytest.mark.integration_test
@FILES
def test_each_example_makes_valid_objects_and_configs(file: Path, secrets: Path) -> None:
    made = template("--values", file)
    assert made
    for each in made:
        if each["kind"] == "Route":
            assert each["spec"]["to"]["name"] in {name_of(s) for s in of_kind(made, "Service")}
        else:
            kubernetes_validate.validate(each, "1.30", strict=True)
    (secrets / "kafka-password").write_text("not this one\n")
    (secrets / "kafka-ca.pem").write_text("")
    for workload in of_kind(made, *WORKLOADS):
        loaded(workload, secrets, made)
    if file.stem == "openshift":
        for workload in of_kind(made, *WORKLOADS):
            assert "fsGroup" not in pod_template(workload)["spec"]["securityContext"]
        assert len(of_kind(made, "Route")) == 3
    if file.stem == "relay-only":
        (policy,) = of_kind(made, "NetworkPolicy")
        assert policy["spec"]["ingress"][1]["from"] == values_of(file)["relay"]["brokers"]
        assert {each["kind"] for each in made} == {
            "ConfigMap", "Ingress", "NetworkPolicy", "Service", "StatefulSet",
        }  # fmt: skip


@pytest.mark.integration_test
@pytest.mark.parametrize("kind", KINDS)
def test_the_rights_are_those_of_the_kinds(kind: str) -> None:
    made = template("--set", f"cluster.kinds={{{kind}}},cluster.namespaces={{a,b}}")
    (role,) = of_kind(made, "ClusterRole")
    rights = {
        (rule["apiGroups"][0], resource): set(rule["verbs"])
        for rule in role["rules"]
        for resource in rule["resources"]
    }
    known = KINDS[kind]
    expected = {(each.group, each.plural): {"list"} for each in (PODS, *known.looks_up)}
    expected[known.resource.group, known.resource.plural] = {"list", "watch"}
    assert rights == expected
    bindings = of_kind(made, "RoleBinding")
    assert [each["metadata"]["namespace"] for each in bindings] == ["a", "b"]


@pytest.mark.integration_test
def test_without_namespaces_the_rights_are_for_all() -> None:
    made = template("--values", CHART / "examples" / "models.yaml")
    assert not of_kind(made, "RoleBinding")
    (binding,) = of_kind(made, "ClusterRoleBinding")
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "recodex-monitor", "namespace": "monitoring"}
    ]
    (role,) = of_kind(made, "ClusterRole")
    assert {"apiGroups": ["ml.example.org"], "resources": ["modelservers"],
            "verbs": ["list", "watch"]} in role["rules"]  # fmt: skip


@pytest.mark.integration_test
def test_two_releases_share_no_name_and_no_selector() -> None:
    one, two = template(), template(release="second")

    def names(found: list[Object]) -> set[tuple[str, str]]:
        return {(each["kind"], name_of(each)) for each in found}

    assert not names(one) & names(two)
    selected = [
        {json.dumps(each["spec"]["selector"]) for each in of_kind(found, "Service")}
        for found in (one, two)
    ]
    assert not selected[0] & selected[1]


@pytest.mark.integration_test
def test_a_changed_config_replaces_the_pods_of_its_component_alone() -> None:
    def digests(*arguments: str) -> dict[str, str]:
        return {
            name_of(each): pod_template(each)["metadata"]["annotations"]["checksum/config"]
            for each in of_kind(template(*arguments), "Deployment", "StatefulSet")
        }

    before = digests()
    after = digests("--set", "web.config.api.max_clients=9")
    assert {name for name in before if before[name] != after[name]} == {"recodex-monitor-web"}
    everywhere = digests("--set", "settings.clusterName=other")
    assert not set(before.values()) & set(everywhere.values())
    large = template("--set", "producer.config.bus.max_bytes=5368709120")
    assert "max_bytes: 5368709120" in config_map("recodex-monitor-producer", large)["config.yml"]
