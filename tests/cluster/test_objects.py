"""Reading the API's objects: completeness, failures, digests, selectors, owners."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.cluster.kinds import KINDS
from monitor.cluster.kinds.deployment import DEPLOYMENT
from monitor.cluster.kinds.deployment_config import DEPLOYMENT_CONFIG
from monitor.cluster.objects import read_page
from monitor.cluster.pods import read_pod

DIGEST = "sha256:" + "ab" * 32


def service(**status: Any) -> bytes:
    metadata = {
        "name": "churn",
        "namespace": "models",
        "uid": "u",
        "generation": 2,
        "annotations": {"deployment.kubernetes.io/revision": "2"},
    }
    return msgspec.json.encode(
        {"metadata": metadata, "spec": {"replicas": 2, "template": None}, "status": status}
    )


DONE = {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}


@pytest.mark.parametrize(
    ("changes", "complete"),
    [
        ({}, True),
        ({"observedGeneration": 1}, False),
        ({"observedGeneration": None}, False),
        ({"updatedReplicas": 1}, False),
        ({"updatedReplicas": None}, False),
        ({"replicas": 3}, False),
        ({"availableReplicas": 1}, False),
    ],
)
def test_a_deployment_is_complete_as_kubectl_says(
    changes: dict[str, int | None], complete: bool
) -> None:
    assert DEPLOYMENT.read(service(**{**DONE, **changes})).complete is complete


@pytest.mark.parametrize(
    ("reason", "status", "latest", "complete", "failed"),
    [
        ("NewReplicationControllerAvailable", "True", 2, True, False),
        ("NewReplicationControllerAvailable", "True", 0, False, False),
        ("ReplicationControllerUpdated", "True", 2, False, False),
        ("NewReplicationControllerCreated", "Unknown", 2, False, False),
        ("ProgressDeadlineExceeded", "False", 2, False, True),
        ("RolloutCancelled", "False", 2, False, True),
    ],
)
def test_a_deployment_config_is_complete_as_oc_says(
    reason: str, status: str, latest: int, complete: bool, failed: bool
) -> None:
    condition = {"type": "Progressing", "status": status, "reason": reason, "message": "m"}
    found = DEPLOYMENT_CONFIG.read(
        service(**DONE, latestVersion=latest, conditions=[condition]),
    )
    assert (found.complete, found.failure) == (complete, (reason, "m", "") if failed else None)
    assert found.revision == (latest or None)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_null_is_a_missing_field_of_every_kind(kind: str) -> None:
    condition = {"type": None, "status": None, "reason": None, "message": None}
    item = {
        "metadata": {"name": "churn", "uid": "u", "generation": 1, "labels": {"a": None}},
        "spec": {"template": {"spec": {"containers": [None, {"name": None, "args": [None]}]}}},
        "status": {"conditions": [None, condition], "traffic": [None], "components": {"p": None}},
    }
    whole = KINDS[kind].read(msgspec.json.encode(item))
    assert whole is not None
    assert not whole.complete
    for part in ("spec", "status"):
        body = msgspec.json.encode(item | {part: None})
        assert (found := KINDS[kind].read(body)) is not None
        assert (found.name, found.labels) == ("churn", {})


def test_a_failure_of_an_older_generation_is_none_of_this_one() -> None:
    condition = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    old = service(**{**DONE, "observedGeneration": 1}, conditions=[condition])
    assert DEPLOYMENT.read(old).failure is None


@pytest.mark.parametrize(
    ("image_id", "digest"),
    [
        (f"docker-pullable://registry:5000/models/churn@{DIGEST}", DIGEST),
        (f"registry:5000/models/churn@{DIGEST}", DIGEST),
        (f"docker://{DIGEST}", None),
        (DIGEST, None),
        ("", None),
        (None, None),
    ],
)
def test_a_digest_is_what_a_registry_knows_the_image_by(
    image_id: str | None, digest: str | None
) -> None:
    status = {"containerStatuses": [{"name": "server", "imageID": image_id}]}
    pod = read_pod(msgspec.json.encode({"metadata": {"name": "p"}, "status": status}))
    assert pod.digests.get("server") == digest


@pytest.mark.parametrize(
    ("owner", "labels", "expected"),
    [
        (("ReplicaSet", "churn-abc12"), {"pod-template-hash": "abc12"}, ("Deployment", "churn")),
        (("ReplicaSet", "a-b-c-abc12"), {"pod-template-hash": "abc12"}, ("Deployment", "a-b-c")),
        (("ReplicaSet", "byhand"), {}, None),
        (("ReplicaSet", "by-hand"), {"pod-template-hash": "other"}, None),
        (
            ("ReplicationController", "churn-3"),
            {"deploymentconfig": "churn"},
            ("DeploymentConfig", "churn"),
        ),
        (("ReplicationController", "byhand"), {}, None),
        (("Job", "train"), {}, None),
        (None, {}, None),
    ],
)
def test_a_pod_knows_its_service(
    owner: tuple[str, str] | None, labels: dict[str, str], expected: tuple[str, str] | None
) -> None:
    owners = [{"kind": owner[0], "name": owner[1], "controller": True}] if owner else None
    metadata = {"name": "p", "labels": labels, "ownerReferences": owners}
    assert read_pod(msgspec.json.encode({"metadata": metadata})).service == expected


def test_a_selector_is_written_as_the_api_takes_it() -> None:
    selector = {
        "matchLabels": {"app": "churn", "tier": "a"},
        "matchExpressions": [{"key": "gpu", "operator": "Exists"}],
    }
    body = msgspec.json.encode({"metadata": {}, "spec": {"selector": selector}})
    found = DEPLOYMENT.read(body).selector
    assert found == "app=churn,tier=a"


def test_a_former_template_has_the_fingerprint_of_the_service_that_had_it() -> None:
    template = {
        "metadata": {"labels": {"app": "churn"}, "creationTimestamp": None},
        "spec": {"containers": [{"name": "server", "image": "churn:1"}]},
    }
    copied = {
        "metadata": {"labels": {"pod-template-hash": "abc", "app": "churn"}},
        "spec": template["spec"],
    }
    holder = {
        "metadata": {
            "name": "churn-abc",
            "labels": {"pod-template-hash": "abc"},
            "annotations": {
                "deployment.kubernetes.io/revision": "5",
                "deployment.kubernetes.io/revision-history": "1,3",
            },
            "ownerReferences": [{"kind": "Deployment", "name": "churn", "uid": "u"}],
        },
        "spec": {"template": copied},
    }
    (revision,) = DEPLOYMENT.read_revisions([msgspec.json.encode(holder)])
    body = msgspec.json.encode({"metadata": {}, "spec": {"template": template}})
    assert revision.fingerprint == DEPLOYMENT.read(body).fingerprint
    assert (revision.owner, sorted(revision.numbers)) == ("u", [1, 3, 5])
    assert revision.pods == "pod-template-hash=abc"


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(
    st.fixed_dictionaries(
        {}, optional={"metadata": json, "spec": json, "status": json, "items": json}
    )
    | json
)
def test_whatever_comes_is_read_or_refused(value: Any) -> None:
    body = msgspec.json.encode(value)
    for read in (
        lambda: DEPLOYMENT.read(body),
        lambda: DEPLOYMENT_CONFIG.read(body),
        lambda: read_pod(body),
        lambda: read_page(body),
        lambda: DEPLOYMENT.read_revisions([body]),
    ):
        with suppress(msgspec.DecodeError):
            read()


template_parts = st.fixed_dictionaries(
    {},
    optional={
        "metadata": st.none()
        | st.fixed_dictionaries({}, optional={"labels": json, "annotations": json}),
        "spec": st.none()
        | st.fixed_dictionaries({}, optional={"containers": json, "initContainers": json}),
    },
)


@given(template_parts, json)
def test_whatever_template_or_selector_comes_is_read_or_refused(
    template: Any, selector: Any
) -> None:
    body = msgspec.json.encode(
        {"metadata": {}, "spec": {"template": template, "selector": {"matchLabels": selector}}}
    )
    for kind in ("Deployment", "DeploymentConfig"):
        with suppress(msgspec.DecodeError):
            KINDS[kind].read(body)
