"""Credentials, certificates, servers and proxies that change, hang or are missing."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from kubernetes.config import kube_config

from monitor.cluster.access import AccessError, load_access
from monitor.cluster.part import Cluster
from monitor.cluster.plugin import Plugin, PluginError
from monitor.cluster.settings import ClusterSettings
from monitor.part import Health
from tests.cluster.conftest import QUICK, Lab, Run, run_part
from tests.cluster.plays import DeploymentPlay
from tests.servers.kubernetes import KubernetesServer
from tests.store.opened import opened
from tests.waiting import until

pytestmark = pytest.mark.integration_test

V1, V2, V3 = "models/churn:1", "models/churn:2", "models/churn:3"


class Secured:
    """A server over TLS, and a kubeconfig for it with everything inside."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "config.json"
        self.authority = trustme.CA()
        self.server = KubernetesServer(tls=self.context())
        self.server.tokens = {"first"}

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert("127.0.0.1", "api.example.org").configure_cert(context)
        return context

    def write(self, *, user: dict[str, Any] | None = None, **cluster: Any) -> Path:
        pem = base64.b64encode(self.authority.cert_pem.bytes()).decode()
        found = {"server": self.server.url, "certificate-authority-data": pem, **cluster}
        content = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": found}],
            "users": [{"name": "u", "user": {"token": "first"} if user is None else user}],
        }
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(content))
        new.replace(self.file)
        return self.file


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Secured]:
    found = Secured(tmp_path)
    yield found
    found.server.stop()


def lab_of(secured: Secured, directory: Path) -> Lab:
    return Lab(secured.server, directory)


class Running:
    """The part on the kubeconfig of :class:`Secured`."""

    def __init__(self, secured: Secured, directory: Path) -> None:
        self.secured, self.directory = secured, directory
        self.stack = AsyncExitStack()

    async def __aenter__(self) -> Run:
        section = ClusterSettings(
            name="test", kubeconfig=str(self.secured.file), kinds=("Deployment",)
        )
        lab = lab_of(self.secured, self.directory)
        store = await self.stack.enter_async_context(opened(lab.database))
        return await self.stack.enter_async_context(run_part(section, self.directory, store, QUICK))

    async def __aexit__(self, *error: Any) -> None:
        await self.stack.__aexit__(*error)


async def degraded(part: Run, text: str) -> None:
    await until(
        lambda: part.part.state().health is Health.DEGRADED and text in part.part.state().summary
    )


async def test_no_file_is_needed_once_it_is_read(secured: Secured, tmp_path: Path) -> None:
    secured.write()
    play = DeploymentPlay()
    lab = lab_of(secured, tmp_path)
    async with Running(secured, tmp_path) as part:
        await part.healthy()
        lab.play(play.create(V1))
        await part.count(1)
        # As systemd-tmpfiles does with what is old in the unit's private /tmp.
        for name in kube_config._temp_files.values():
            with suppress(OSError):
                Path(name).unlink()
        assert not list(Path(tempfile.gettempdir()).glob("*client-certificate*"))
        secured.server.stop()
        await until(lambda: part.part.state().health is Health.DEGRADED)
        secured.server.start()
        lab.play(play.set_image(V2))
        await part.count(2)


async def test_a_new_authority_and_server_are_taken_up_after_a_failure(
    secured: Secured, tmp_path: Path
) -> None:
    secured.write()
    play = DeploymentPlay()
    lab = lab_of(secured, tmp_path)
    async with Running(secured, tmp_path) as part:
        await part.healthy()
        lab.play(play.create(V1))
        await part.count(1)
        # Another certificate: TLS fails until the kubeconfig has its authority.
        secured.server.stop()
        secured.authority = trustme.CA()
        secured.server._tls = secured.context()
        secured.server.start()
        await degraded(part, "certificate verify failed")
        secured.write()
        await part.healthy()
        # Another address: the connection is refused until the kubeconfig has it.
        secured.server.stop()
        secured.server.port = 0
        await degraded(part, "refused")
        secured.server.start()
        secured.write()
        await part.healthy()
        lab.play(play.set_image(V2))
        await part.count(2)


async def test_another_cluster_in_the_kubeconfig_is_listed(
    secured: Secured, tmp_path: Path
) -> None:
    secured.write()
    lab = lab_of(secured, tmp_path)
    other = Secured(tmp_path)
    lab.play(DeploymentPlay("here").create(V1))
    Lab(other.server, tmp_path).play(DeploymentPlay("there").create(V1))
    try:
        async with Running(secured, tmp_path) as part:
            await part.count(1)
            other.write()
            # The old one still answers; only the next request reads the file.
            secured.server.break_watches("end")
            await part.count(3)
            assert set(part.told[1:]) == {
                ("here", "removed", "deleted"),
                ("there", "deployed", "created"),
            }
    finally:
        other.server.stop()


async def test_a_reload_loads_the_credentials_again(secured: Secured, tmp_path: Path) -> None:
    secured.write()
    play = DeploymentPlay()
    lab = lab_of(secured, tmp_path)
    async with Running(secured, tmp_path) as part:
        await part.healthy()
        watches = len(secured.server.requests_of("watch"))
        switch = await part.part.prepare(part.part._settings)
        switch()
        await until(lambda: len(secured.server.requests_of("watch")) > watches)
        assert len(secured.server.requests_of("list")) == 1
        lab.play(play.create(V1))
        await part.count(1)
        await part.healthy()


def plugin_script(directory: Path, text: str) -> str:
    file = directory / "plugin"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return str(file)


def answer(**status: Any) -> str:
    return json.dumps({"kind": "ExecCredential", "status": status})


async def test_a_plugins_token_is_used_and_renewed(secured: Secured, tmp_path: Path) -> None:
    (tmp_path / "answer").write_text(answer(token="first"))
    command = plugin_script(tmp_path, 'test -n "$KUBERNETES_EXEC_INFO" && cat answer')
    secured.write(user={"exec": {"command": command, "apiVersion": "v1", "args": None}})
    play = DeploymentPlay()
    lab = lab_of(secured, tmp_path)
    async with Running(secured, tmp_path) as part:
        await part.healthy()
        secured.server.tokens = {"second"}
        secured.server.break_watches("end")
        await degraded(part, "HTTP 401")
        (tmp_path / "answer").write_text(answer(token="second"))
        await part.healthy()
        lab.play(play.create(V1))
        await part.count(1)


async def test_who_is_impersonated_is_sent(secured: Secured, tmp_path: Path) -> None:
    secured.write(user={"token": "first", "as": "viewer", "as-groups": ["models", "all"]})
    async with Running(secured, tmp_path) as part:
        await part.healthy()
        assert {request.groups for request in secured.server.requests} == {("models", "all")}


@pytest.mark.parametrize("inside", [True, False])
def test_a_plugin_is_told_the_cluster_where_it_wants_that(secured: Secured, inside: bool) -> None:
    command = plugin_script(
        secured.file.parent, f"echo \"$KUBERNETES_EXEC_INFO\" >info; echo '{answer(token='t')}'"
    )
    authority = secured.file.with_name("ca.pem")
    authority.write_bytes(secured.authority.cert_pem.bytes())
    extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "a"}}
    cluster: dict[str, Any] = {"extensions": [extension], "tls-server-name": "api.example.org"}
    if not inside:
        cluster |= {"certificate-authority-data": "", "certificate-authority": "ca.pem"}
    loaded(
        secured.write(user={"exec": {"command": command, "provideClusterInfo": True}}, **cluster)
    )
    assert json.loads(secured.file.with_name("info").read_text())["spec"]["cluster"] == {
        "server": secured.server.url,
        "tls-server-name": "api.example.org",
        "certificate-authority-data": base64.b64encode(authority.read_bytes()).decode(),
        "config": {"audience": "a"},
    }


async def test_a_plugin_that_hangs_is_named_and_ends_with_the_part(
    secured: Secured, tmp_path: Path
) -> None:
    command = plugin_script(tmp_path, "sleep 1000 & echo $! >child; wait")
    secured.write(user={"exec": {"command": command}})
    async with Running(secured, tmp_path) as part:
        await until(lambda: "waiting for the credential plugin plugin" in summary(part.part))
        await until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text())
        child = int((tmp_path / "child").read_text())
        began = asyncio.get_running_loop().time()
        await part.part.drain()
        assert asyncio.get_running_loop().time() - began < 15
    await until(lambda: not Path(f"/proc/{child}").exists() or is_zombie(child))
    assert not [t.name for t in threading.enumerate() if t.name.startswith("watch-")]


def is_zombie(process: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def summary(part: Cluster) -> str:
    return part.state().summary


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "the credential plugin no-such-plugin is not installed; get it from us"),
        ("exit 3", "the credential plugin plugin failed with status 3"),
        ("echo your session is over >&2; exit 1", "with status 1: your session is over"),
        ("echo '{'", "the credential plugin plugin returned no ExecCredential"),
        ("echo '{\"status\": {}}'", "returned neither a token nor a certificate"),
        ("yes", "the credential plugin plugin does not stop writing"),
    ],
)
async def test_a_plugin_that_gives_nothing_is_named(
    secured: Secured, tmp_path: Path, text: str | None, problem: str
) -> None:
    command = "no-such-plugin" if text is None else plugin_script(tmp_path, text)
    secured.write(user={"exec": {"command": command, "installHint": "get it\nfrom us"}})
    async with Running(secured, tmp_path) as part:
        await degraded(part, problem)


def test_a_plugin_that_hangs_ends_after_its_limit(tmp_path: Path) -> None:
    command = plugin_script(tmp_path, "sleep 1000")
    with pytest.raises(PluginError, match=r"did not answer within 0\.2 s"):
        Plugin(limit_s=0.2).run({"command": command}, {}, tmp_path)


def loaded(file: Path) -> Any:
    access = load_access(file, service_account=file.parent, plugin=Plugin(), connections=2)
    access.close()
    return access


@pytest.mark.parametrize("what", ["pipe", "device", "file"])
def test_a_token_is_read_from_a_regular_file_only(tmp_path: Path, what: str) -> None:
    kubeconfig, token = tmp_path / "kubeconfig", tmp_path / "token"
    kubeconfig.write_text(
        "current-context: c\n"
        "contexts: [{name: c, context: {cluster: k, user: u}}]\n"
        "clusters: [{name: k, cluster: {server: 'http://127.0.0.1:1'}}]\n"
        "users: [{name: u, user: {tokenFile: token}}]\n"
    )
    if what == "file":
        token.write_text("a-token\n")
        assert loaded(kubeconfig).headers == {"authorization": "Bearer a-token"}
        # As in kubectl, the file counts even if there is a token, too.
        both = kubeconfig.read_text().replace("tokenFile", "token: other, tokenFile")
        kubeconfig.write_text(both)
        assert loaded(kubeconfig).headers == {"authorization": "Bearer a-token"}
        token.unlink()
        assert loaded(kubeconfig).headers == {"authorization": "Bearer other"}
        return
    if what == "pipe":
        os.mkfifo(token)
    else:
        token.symlink_to("/dev/zero")
    with pytest.raises(AccessError, match=f"cannot read {token}: a {what}"):
        loaded(kubeconfig)


@pytest.mark.parametrize("nothing", [None, ""])
def test_keys_without_a_value_are_absent(
    secured: Secured, tmp_path: Path, nothing: str | None
) -> None:
    command = plugin_script(tmp_path, 'echo \'{"status": {"token": "from-plugin"}}\'')
    unset = dict.fromkeys(("token", "tokenFile", "auth-provider", "client-key", "as"), nothing)
    plugin = {"command": command, "args": None, "env": [{"name": "A", "value": nothing}]}
    cluster = dict.fromkeys(
        ("certificate-authority", "proxy-url", "insecure-skip-tls-verify"), nothing
    )
    secured.write(user={**unset, "exec": plugin}, **cluster)
    assert loaded(secured.file).headers == {"authorization": "Bearer from-plugin"}
    secured.write(user={**unset, "exec": nothing})
    assert loaded(secured.file).headers == {}
    content = json.loads(secured.file.read_text())
    content["users"][0]["user"] = nothing
    secured.file.write_text(json.dumps(content))
    assert loaded(secured.file).headers == {}


def test_the_proxy_is_that_of_the_kubeconfig_or_of_the_environment(
    secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    assert loaded(secured.write()).pool.proxy is None
    monkeypatch.setenv("HTTPS_PROXY", "http://user:pass@proxy.example.org:3128")
    access = loaded(secured.write())
    assert (access.pool.proxy.host, access.pool.proxy.port) == ("proxy.example.org", 3128)
    assert access.pool.proxy_headers["proxy-authorization"].startswith("Basic ")
    monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
    assert loaded(secured.file).pool.proxy is None
    proxy: dict[str, Any] = {"proxy-url": "http://127.0.0.1:8080"}
    other = secured.write(**proxy)
    assert loaded(other).pool.proxy.port == 8080


async def test_a_client_certificate_and_another_server_name_are_used(
    secured: Secured, tmp_path: Path
) -> None:
    context = secured.context()
    context.verify_mode = ssl.CERT_REQUIRED
    secured.authority.configure_trust(context)
    secured.server.stop()
    secured.server._tls, secured.server.tokens = context, None
    secured.server.start()
    issued = secured.authority.issue_cert("monitor@example.org")
    chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
    user = {
        "client-certificate-data": base64.b64encode(chain).decode(),
        "client-key-data": base64.b64encode(issued.private_key_pem.bytes()).decode(),
    }
    name: dict[str, Any] = {"tls-server-name": "api.example.org"}
    secured.write(user=user, **name)
    async with Running(secured, tmp_path) as part:
        await part.healthy()
        name["tls-server-name"] = "another.example.org"
        secured.write(user=user, **name)
        secured.server.break_watches("end")
        await degraded(part, "TLS")
