"""The manifest of rights, and the pages that speak of this part, are what the part does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from monitor.cluster.kinds import KINDS
from monitor.cluster.mapping import MappingSettings
from monitor.cluster.settings import ClusterSettings
from monitor.messages import ModelEvent
from tests.cluster.conftest import Lab
from tests.cluster.plays import DeploymentConfigPlay, DeploymentPlay

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = ROOT / "packaging" / "kubernetes" / "cluster-rbac.yaml"
REFERENCE = (ROOT / "docs" / "reference" / "model-events.md").read_text()


def granted(text: str = "") -> set[tuple[str, str]]:
    documents = list(yaml.safe_load_all(text or MANIFEST.read_text()))
    (role,) = [document for document in documents if document["kind"] == "ClusterRole"]
    return {
        (verb, plural)
        for rule in role["rules"]
        for plural in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.mark.integration_test
async def test_the_rights_are_those_that_are_used_and_no_more(lab: Lab) -> None:
    async with lab.run(kinds=("Deployment", "DeploymentConfig", "Pod")) as part:
        await part.healthy()
        for play in (DeploymentPlay("one"), DeploymentConfigPlay("two")):
            lab.play(play.create("models/m:1"))
        await part.count(2 + 4)
    used = {(request.verb, request.plural) for request in lab.server.requests}
    assert used == granted()


def test_the_comments_have_the_rights_of_all_other_kinds() -> None:
    rules = re.sub(r"^# (- apiGroups|  )", r"\1", MANIFEST.read_text(), flags=re.MULTILINE)
    rights = granted(rules)
    for kind in KINDS.values():
        plurals = {kind.resource.plural: {"list", "watch"}}
        plurals |= {resource.plural: {"list"} for resource in kind.looks_up}
        for plural, verbs in plurals.items():
            assert {(verb, plural) for verb in verbs} <= rights, kind.name


def test_the_rights_are_given_to_the_service_account_of_the_manifest() -> None:
    documents = {item["kind"]: item for item in yaml.safe_load_all(MANIFEST.read_text())}
    account = documents["ServiceAccount"]["metadata"]
    (subject,) = documents["RoleBinding"]["subjects"]
    assert subject == {"kind": "ServiceAccount", **account}
    assert (
        documents["RoleBinding"]["roleRef"]["name"]
        == (documents["ClusterRole"]["metadata"]["name"])
    )


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_reference_shows_the_fields_and_defaults_there_are() -> None:
    (example,) = blocks(REFERENCE, "json")
    assert set(msgspec.json.decode(example)) == set(ModelEvent.__struct_fields__)
    (section,) = blocks(REFERENCE, "yaml")
    shown = msgspec.convert(yaml.safe_load(section)["cluster"], ClusterSettings)
    assert shown.mapping == MappingSettings()


def test_the_how_to_shows_sections_that_are_valid() -> None:
    text = (ROOT / "docs" / "how-to" / "cluster.md").read_text()
    sections: list[Any] = [yaml.safe_load(block) for block in blocks(text, "yaml")]
    shown = [section["cluster"] for section in sections if "cluster" in section]
    assert len(shown) == 3
    for section in shown:
        msgspec.convert(section, ClusterSettings)


def test_the_config_that_is_installed_shows_the_defaults() -> None:
    text = (ROOT / "install" / "config.yml").read_text()
    found = re.search(r"^#cluster:\n(?:#.*\n)+", text, re.MULTILINE)
    assert found is not None
    section = yaml.safe_load(re.sub(r"^#", "", found[0], flags=re.MULTILINE))["cluster"]
    assert section.pop("namespaces") == ["models"]  # an example; the default is all
    assert msgspec.convert(section, ClusterSettings) == ClusterSettings()
