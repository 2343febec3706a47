"""What a kubeconfig or a pod's service account says about the server and who asks it."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from monitor.cluster.access import Access, AccessError, load_access
from monitor.cluster.plugin import Plugin

SERVER = "http://a.test:8001/"


def config_of(cluster: dict[str, Any], user: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "one", "user": "me"}}],
        "clusters": [{"name": "other", "cluster": {}}, {"name": "one", "cluster": cluster}],
        "users": [{"name": "me", "user": user}],
        **more,
    }


def loaded(directory: Path, config: dict[str, Any]) -> Access:
    file = directory / "kubeconfig"
    file.write_text(json.dumps(config))
    return load_access(file, service_account=directory, plugin=Plugin(), connections=1)


def identity_token(**claims: Any) -> str:
    parts: tuple[dict[str, Any], ...] = ({"alg": "none"}, claims, {})
    return ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts
    )


IDENTITY = identity_token(exp=4e9, sub="somebody")


@pytest.mark.parametrize(
    ("user", "authorization"),
    [
        ({}, None),
        ({"token": "t\n"}, "Bearer t"),
        ({"username": "a", "password": "b:c"}, "Basic YTpiOmM="),
        ({"username": "a", "password": "b", "token": "t"}, "Bearer t"),
        ({"username": "a"}, None),
        # The kubernetes package is asked for this one.
        (
            {"auth-provider": {"name": "oidc", "config": {"id-token": IDENTITY}}, "token": "t"},
            f"Bearer {IDENTITY}",
        ),
        ({"auth-provider": {"name": "none"}, "token": "t"}, "Bearer t"),
    ],
)
def test_the_user_of_the_context_is_who_asks(
    tmp_path: Path, user: dict[str, Any], authorization: str | None
) -> None:
    access = loaded(tmp_path, config_of({"server": SERVER}, user))
    assert (access.host, access.headers.get("authorization")) == (SERVER[:-1], authorization)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (config_of({}, {}), "the cluster has no server"),
        (config_of({"server": 5}, {}), "the cluster has no server"),
        (config_of({"server": "a.test"}, {}), "not a URL with http or https"),
        (config_of({"server": SERVER}, {}, contexts=[]), "no context is named 'c'"),
        (config_of({"server": SERVER}, {}, clusters=[{"name": "x"}]), "no cluster is named 'one'"),
        (
            config_of({"server": "https://a.test", "certificate-authority": "none.pem"}, {}),
            "none.pem: No such file",
        ),
    ],
)
def test_what_a_kubeconfig_lacks_is_named(
    tmp_path: Path, config: dict[str, Any], problem: str
) -> None:
    with pytest.raises(AccessError, match=problem):
        loaded(tmp_path, config)


def test_a_kubeconfig_without_a_provider_needs_no_package(tmp_path: Path) -> None:
    loaded(tmp_path, config_of({"server": SERVER}, {"token": "t"}))
    code = (
        "import sys; from pathlib import Path; from monitor.cluster.access import load_access;"
        " from monitor.cluster.plugin import Plugin; file = Path(sys.argv[1]);"
        " load_access(file, service_account=file, plugin=Plugin(), connections=1);"
        " import monitor.cluster.part; sys.exit('kubernetes' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "kubeconfig")], check=True)
