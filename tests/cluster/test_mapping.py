"""How an object maps to a model and its version."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from monitor.cluster.api import Api, ApiError
from monitor.cluster.mapping import Mapped, MappingSettings, image_parts, map_object
from monitor.cluster.settings import ClusterSettings
from monitor.errors import SettingError

IMAGES = {
    "loader": "registry:5000/tools/loader:9",
    "server": "registry:5000/models/churn:1.4@sha256:ab",
}


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("churn", ("churn", "", "")),
        ("models/churn:1.4", ("churn", "1.4", "")),
        ("registry:5000/churn", ("churn", "", "")),
        ("registry:5000/a/churn:1@sha256:ab", ("churn", "1", "sha256:ab")),
        ("churn@sha256:ab", ("churn", "", "sha256:ab")),
        ("", ("", "", "")),
    ],
)
def test_an_image_reference_is_taken_apart(reference: str, expected: tuple[str, str, str]) -> None:
    assert image_parts(reference) == expected


@pytest.mark.parametrize(
    ("settings", "labels", "annotations", "expected"),
    [
        ({}, {"app.kubernetes.io/name": "a", "app": "b"}, {}, ("a", "9")),
        ({}, {"app": "b", "version": "3"}, {}, ("b", "3")),
        ({}, {}, {}, ("deploy", "9")),
        ({"container": "server"}, {}, {}, ("deploy", "1.4")),
        ({"container": "gone"}, {}, {}, ("deploy", "9")),
        (
            {"model": ("annotation:m",), "version": ("annotation:v",)},
            {},
            {"m": "churn", "v": "7"},
            ("churn", "7"),
        ),
        (
            {"model": ("image-name",), "version": ("image-digest",), "container": "server"},
            {},
            {},
            ("churn", "sha256:ab"),
        ),
        ({"model": ("label:none",), "version": ("label:none",)}, {}, {}, (None, None)),
    ],
)
def test_the_first_source_that_gives_something_wins(
    settings: dict[str, object],
    labels: dict[str, str],
    annotations: dict[str, str],
    expected: tuple[str | None, str | None],
) -> None:
    mapping = MappingSettings(**settings)  # type: ignore[arg-type]
    mapping.verify()
    found = map_object(
        mapping, name="deploy", labels=labels, annotations=annotations, images=IMAGES
    )
    assert found == Mapped(*expected)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"mapping": MappingSettings(model=("label:",))},
            "mapping.model[0]: expected label:KEY, annotation:KEY, image-name, image-tag,"
            " image-digest, name, template-label:KEY, template-annotation:KEY, env:NAME or"
            " arg:--FLAG, not 'label:'",
        ),
        (
            {"mapping": MappingSettings(version=("name", "tag"))},
            "mapping.version[1]: expected label:KEY, annotation:KEY, image-name, image-tag,"
            " image-digest, name, template-label:KEY, template-annotation:KEY, env:NAME or"
            " arg:--FLAG, not 'tag'",
        ),
        ({"namespaces": ("Models",)}, "namespaces[0]: 'Models' is not the name of a namespace"),
        ({"namespaces": ("a", "b", "a")}, "namespaces[2]: a is listed twice"),
        ({"namespaces": tuple(f"n{i}" for i in range(51))}, "namespaces: more than 50"),
        ({"kinds": ()}, "kinds: is empty: there is nothing to watch"),
        ({"kinds": ("Pod", "Pod")}, "kinds: lists a kind twice"),
        ({"topic": ""}, "topic: is empty"),
        ({"kubeconfig": "/nowhere/config"}, "kubeconfig: cannot read /nowhere/config"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], problem: str) -> None:
    with pytest.raises(SettingError) as caught:
        ClusterSettings(**settings).verify()  # type: ignore[arg-type]
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize(
    "content",
    ["0123456789abcdef0123456789abcdef\n", "", "- a", "a: 1", "clusters: []", "{: no", "[" * 5000],
    ids=lambda content: content[:20],
)
def test_a_kubeconfig_without_clusters_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(content)
    with pytest.raises(SettingError) as caught:
        ClusterSettings(kubeconfig=str(file)).verify()
    said = str(caught.value)
    assert re.match(rf"kubeconfig: {re.escape(str(file))}( is not a kubeconfig|:1: not YAML)", said)
    assert len(said.splitlines()) == 1


def test_a_kubeconfig_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SettingError, match="a pipe, not a regular file"):
        ClusterSettings(kubeconfig=str(tmp_path / "fifo")).verify()


def test_outside_a_pod_the_kubeconfig_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ApiError, match="not running in a pod of a cluster; set cluster"):
        list(Api(None, service_account=tmp_path).pages("/api/v1/pods"))
