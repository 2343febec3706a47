"""What a page needs before its commands run, and what is done instead of some of them."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from tests.cluster.conftest import write_kubeconfig
from tests.cluster.play import Step
from tests.cluster.plays import DeploymentPlay
from tests.distro.built import copy_of_tree
from tests.distro.conftest import add_repository
from tests.distro.old import EDITED_CONFIG, old_deb
from tests.docs.story import Instead
from tests.docs.unrun import NEEDS_A_CLUSTER
from tests.docs.world import World
from tests.ports import free_port
from tests.servers.kafka import Kafka
from tests.servers.kubernetes import KubernetesServer
from tests.servers.postgres import make_server

__all__ = ["Servers", "scene"]

Scene = Callable[["World", "Servers"], AbstractContextManager[Mapping[str, Instead]]]


@dataclass
class Servers:
    """How to start servers that are not in the world for all pages."""

    make_kafka: Callable[..., Kafka]


def scene(page: str) -> Scene:
    """Return what to set up for a page."""
    return _SCENES.get(page, _plain)


@contextmanager
def _plain(world: World, servers: Servers) -> Iterator[Mapping[str, Instead]]:
    yield {}


@contextmanager
def _certificate(world: World, servers: Servers) -> Iterator[Mapping[str, Instead]]:
    chain, key = world.pem("recodex.example.org", "monitor.example.org")
    world.debian.write("/etc/ssl/certs/recodex.example.org.pem", chain)
    world.debian.write("/etc/ssl/private/recodex.example.org.key", key)
    world.debian.path("/etc/ssl/private/recodex.example.org.key").chmod(0o600)
    yield {}


@contextmanager
def _source(world: World, servers: Servers) -> Iterator[Mapping[str, Instead]]:
    """Put a checkout where the page begins; what pip would fetch comes from Debian."""
    debian = world.debian
    debian.run("apt-get", "install", "python3-venv")
    if not debian.path("/srv/tree").exists():
        tree = copy_of_tree(world.directory / "tree")
        debian.copy_in(tree, "/srv/tree")
    debian.write("/srv/story/cwd", "/srv/tree\n")
    debian.write(
        "/root/.config/pip/pip.conf",
        "[global]\nno-index = true\nno-deps = true\nfind-links = /usr/share/python-wheels\n",
    )
    debian.write("/etc/recodex/monitor/env", "PYTHONPATH=/usr/lib/python3/dist-packages\n")
    yield {}
    debian.run("systemctl", "disable", "--now", "recodex-monitor")


@contextmanager
def _old_monitor(world: World, servers: Servers) -> Iterator[Mapping[str, Instead]]:
    debian = world.debian
    directory = world.directory / "old"
    directory.mkdir()
    debian.copy_in(old_deb(directory, conffile=True), "/srv/old.deb")
    debian.run("dpkg", "--install", "/srv/old.deb")
    debian.write("/etc/recodex/monitor/config.yml", EDITED_CONFIG)
    add_repository(debian, "https://packages.example.org", world.built)
    yield {}
    assert debian.path("/etc/recodex/monitor/config.yml").read_text() == EDITED_CONFIG


@contextmanager
def _postgresql(world: World, servers: Servers) -> Iterator[Mapping[str, Instead]]:
    """A server that takes the daemon with TLS and its password alone, and the administrator."""
    server = make_server({"fsync": "off", "ssl": "on", "password_encryption": "scram-sha-256"})
    try:
        data = server.directory / "data"
        owner = data.stat()
        chain, key = world.pem("db.example.org")
        rules = (
            "hostssl monitoring monitor 127.0.0.1/32 scram-sha-256\n"
            "host all postgres 127.0.0.1/32 trust\n"
        )
        for name, text in (("server.crt", chain), ("server.key", key), ("pg_hba.conf", rules)):
            (data / name).write_text(text)
            (data / name).chmod(0o600)
            os.chown(data / name, owner.st_uid, owner.st_gid)
        server.start()
        with world.leads(5432, server.port):
            yield {}
            world.debian.run("systemctl", "stop", "recodex-monitor")
    finally:
        server.remove()


@contextmanager
def _kafka(world: World, servers: Servers) -> Iterator[Mapping[str, Instead]]:
    """A broker that takes SCRAM over TLS as kafka-1.example.org:9093."""
    from kafka.admin import KafkaAdminClient, ScramMechanism, UserScramCredentialUpsertion

    chain, key = world.pem("kafka-1.example.org")
    store = world.directory / "kafka.pem"
    store.write_text(key + chain)
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    secured = free_port()
    broker = servers.make_kafka(
        properties={
            "listeners": "PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},"
            f"SASL_SSL://127.0.0.1:{secured}",
            "advertised.listeners": "PLAINTEXT://127.0.0.1:{port},"
            "SASL_SSL://kafka-1.example.org:9093",
            "listener.security.protocol.map": "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,"
            "CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": scram,
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(store),
        }
    )
    admin = KafkaAdminClient(bootstrap_servers=[broker.bootstrap])
    try:
        user = UserScramCredentialUpsertion(
            "monitor", ScramMechanism.SCRAM_SHA_512, "a secret", iterations=4096
        )
        assert admin.alter_user_scram_credentials([user]) == {"monitor": None}
    finally:
        admin.close()
    with world.leads(9093, secured):
        yield {}
        world.debian.run("systemctl", "stop", "recodex-monitor")


@contextmanager
def _cluster(world: World, servers: Servers) -> Iterator[Mapping[str, Instead]]:
    """A Kubernetes API; what kubectl asks for is played on it as the controllers would."""
    server = KubernetesServer()
    play = DeploymentPlay("churn", labels={"app.kubernetes.io/name": "churn"})

    def write(steps: Iterator[Step]) -> None:
        for step in steps:
            for change in step:
                if change.item is None:
                    server.delete(change.plural, change.namespace, change.name)
                else:
                    server.write(change.plural, change.item)

    def upgrade() -> None:
        before.append(copy.deepcopy(play.template))
        write(play.set_image("registry.example.org/models/churn:1.5"))

    before: list[dict[str, Any]] = []
    write(play.create("registry.example.org/models/churn:1.4"))
    file = write_kubeconfig(world.directory / "kubeconfig", server)
    config = json.loads(file.read_text())
    config["clusters"][0]["cluster"]["server"] = "http://kubernetes.example.org:6443"
    world.debian.write("/etc/recodex/monitor/kubeconfig", json.dumps(config))
    try:
        with world.leads(6443, int(server.url.rsplit(":", 1)[1])):
            yield {
                **NEEDS_A_CLUSTER,
                r"kubectl -n models set image .*": upgrade,
                r"kubectl -n models rollout undo .*": lambda: write(play.undo(before[-1])),
            }
            world.debian.run("systemctl", "stop", "recodex-monitor")
    finally:
        server.stop()


_SCENES: dict[str, Scene] = {
    "docs/deploy/apache.md": _certificate,
    "docs/deploy/kafka.md": _kafka,
    "docs/deploy/nginx.md": _certificate,
    "docs/deploy/postgresql.md": _postgresql,
    "docs/deploy/source.md": _source,
    "docs/deploy/tls.md": _certificate,
    "docs/deploy/upgrade.md": _old_monitor,
    "docs/how-to/cluster.md": _cluster,
}
