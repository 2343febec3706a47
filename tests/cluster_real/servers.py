"""A real Kubernetes API: etcd, kube-apiserver and kube-controller-manager, without any node.

Deployments roll out as in a cluster: ReplicaSets, revisions, conditions and pods are made by
the real controllers. What a kubelet would say of a pod, :class:`Kubelet` says.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import requests

from tests.cluster.conftest import write_kubeconfig
from tests.cluster.play import digest_of
from tests.conftest import missing
from tests.ports import free_port
from tests.servers.kept import cache_directory
from tests.waiting import wait_for

__all__ = ["Api", "Kubelet"]

Object = dict[str, Any]

_START_S = 90.0
_ADMIN = "admins-token"


def _programs() -> Path:
    built = sorted(cache_directory().glob("kubernetes-v*/kube-apiserver"))
    if not built:
        missing("no Kubernetes API was built (tests/build-kubernetes)")
    return built[-1].parent


class Api:
    """The servers, their state in ``directory``, and an administrator's way to them."""

    def __init__(self, directory: Path, *, compaction: str = "5m") -> None:
        self._programs = _programs()
        self._directory = directory
        self._compaction = compaction
        self._etcd_port, self._peer_port, self._port = free_port(), free_port(), free_port()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._backups = itertools.count(1)
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {_ADMIN}"
        self.certificate = directory / "certificates" / "apiserver.crt"
        self.url = f"https://127.0.0.1:{self._port}"
        self.admin = directory / "admin.yml"
        """A kubeconfig of the administrator."""
        directory.mkdir(parents=True, exist_ok=True)
        self._key = directory / "service-accounts.key"
        _call("openssl", "genrsa", "-out", str(self._key), "2048")
        (directory / "tokens.csv").write_text(f'{_ADMIN},admin,1,"system:masters"\n')

    def start(self) -> None:
        """Start all of it, and return when the API serves and the controllers run."""
        etcd = f"http://127.0.0.1:{self._etcd_port}"
        peer = f"http://127.0.0.1:{self._peer_port}"
        self._run(
            "etcd",
            *(f"--data-dir={self._directory / 'etcd'}", "--log-level=error"),
            *(f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}"),
            *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
            f"--initial-cluster=default={peer}",
        )
        self.start_api()
        self._start_controllers()

    def _start_controllers(self) -> None:
        self._write_kubeconfig(self.admin, _ADMIN)
        self._run(
            "kube-controller-manager",
            f"--kubeconfig={self.admin}",
            f"--service-account-private-key-file={self._key}",
            *("--leader-elect=false", "--secure-port=0"),
            *("--kube-api-qps=500", "--kube-api-burst=1000"),
        )

    def start_api(self) -> None:
        """Start the API server alone, over an etcd that is there."""
        self._run(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            f"--etcd-compaction-interval={self._compaction}",
            *("--bind-address=127.0.0.1", f"--secure-port={self._port}"),
            f"--cert-dir={self.certificate.parent}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self._key}",
            f"--service-account-signing-key-file={self._key}",
            *("--authorization-mode=RBAC", f"--token-auth-file={self._directory / 'tokens.csv'}"),
            "--service-cluster-ip-range=10.0.0.0/24",
        )
        wait_for(self._is_ready, "the API server", limit_s=_START_S)

    def stop_api(self, sent: signal.Signals = signal.SIGKILL) -> None:
        """End the API server; etcd and the controllers stay."""
        process = self._running.pop("kube-apiserver")
        process.send_signal(sent)
        process.wait(timeout=120)  # in order, it waits up to 60 s for open watches

    def backup(self) -> Path:
        """Copy the data of etcd while all of it is down, and start it again."""
        self._end()
        copied = self._directory / f"backup-{next(self._backups)}"
        shutil.copytree(self._directory / "etcd", copied)
        self.start()
        return copied

    def restore(self, backup: Path) -> None:
        """Go back to a backup: later revisions never were."""
        self._end()
        shutil.rmtree(self._directory / "etcd")
        shutil.copytree(backup, self._directory / "etcd")
        self.start()

    def stop(self) -> None:
        """End all of it."""
        self._end()
        self._session.close()

    def _end(self) -> None:
        for process in self._running.values():
            process.kill()
        for process in self._running.values():
            process.wait(timeout=30)
        self._running.clear()

    def call(self, verb: str, path: str, body: Object | None = None, *, of: str = "") -> Object:
        """Do a request as the administrator and return the answer; ``of`` is the body's kind."""
        headers = {"Content-Type": of or "application/json"}
        data = None if body is None else json.dumps(body)
        answer = self._session.request(
            *(verb, self.url + path),
            data=data,
            headers=headers,
            verify=str(self.certificate),
            timeout=30,
        )
        assert answer.ok, f"{verb} {path}: {answer.status_code} {answer.text[:500]}"
        found: Object = answer.json()
        return found

    def apply(self, items: Sequence[Object]) -> None:
        """Make objects as ``kubectl apply --server-side`` does."""
        for item in items:
            group = item["apiVersion"]
            root = f"/api/{group}" if "/" not in group else f"/apis/{group}"
            namespace = item["metadata"].get("namespace")
            inside = f"/namespaces/{namespace}" if namespace else ""
            name = item["metadata"]["name"]
            how = "fieldManager=tests&force=true&fieldValidation=Strict"
            path = f"{root}{inside}/{_plural(item['kind'])}/{name}?{how}"
            self.call("PATCH", path, item, of="application/apply-patch+yaml")

    def token_of(self, namespace: str, account: str) -> str:
        """Return a token of a service account."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        token: str = self.call("POST", path, request)["status"]["token"]
        return token

    def kubeconfig(self, name: str, token: str) -> Path:
        """Write a kubeconfig with the token."""
        return self._write_kubeconfig(self._directory / f"{name}.yml", token)

    def log(self, program: str) -> str:
        """Return what a server said."""
        return (self._directory / f"{program}.log").read_text(errors="replace")

    def _write_kubeconfig(self, file: Path, token: str) -> Path:
        return write_kubeconfig(file, self, token=token, certificate=self.certificate)

    def _run(self, program: str, *arguments: str) -> None:
        with (self._directory / f"{program}.log").open("ab") as log:
            self._running[program] = subprocess.Popen(
                [str(self._programs / program), *arguments],
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"]},
            )

    def _is_ready(self) -> bool:
        process = self._running["kube-apiserver"]
        assert process.poll() is None, self.log("kube-apiserver")[-2000:]
        with suppress(requests.RequestException, OSError):
            url = f"{self.url}/readyz"
            return self._session.get(url, verify=str(self.certificate), timeout=5).ok
        return False


class Kubelet:
    """Says of the pods of a namespace that they run, but of those of a ``broken`` image.

    A thread that watches the pods, as a kubelet does; a context manager.
    """

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._attend, name="kubelet")

    def __enter__(self) -> Kubelet:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(30)

    def _attend(self) -> None:
        while not self._ended.wait(0.1):
            with suppress(AssertionError, requests.RequestException):
                for pod in self._api.call("GET", self._path)["items"]:
                    self._see_to(pod)

    def _see_to(self, pod: Object) -> None:
        name = pod["metadata"]["name"]
        if pod["metadata"].get("deletionTimestamp"):
            gone = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
            self._api.call("DELETE", f"{self._path}/{name}", gone)
        elif "containerStatuses" not in pod["status"]:
            merge = "application/merge-patch+json"
            self._api.call("PATCH", f"{self._path}/{name}/status", _status(pod), of=merge)


def _status(pod: Mapping[str, Any]) -> Object:
    containers = pod["spec"]["containers"]
    runs = not any("broken" in container["image"] for container in containers)
    state = {"running": {}} if runs else {"waiting": {"reason": "ImagePullBackOff"}}
    ready = {"type": "Ready", "status": "True" if runs else "False"}
    return {
        "status": {
            "phase": "Running" if runs else "Pending",
            "conditions": [ready],
            "containerStatuses": [
                {
                    **{"name": container["name"], "image": container["image"]},
                    "imageID": f"docker.io/{container['image']}@{digest_of(container['image'])}",
                    **{"ready": runs, "restartCount": 0, "state": state},
                }
                for container in containers
            ],
        }
    }


def _plural(kind: str) -> str:
    name = kind.lower()
    if name.endswith("y"):
        return name[:-1] + "ies"
    return name + ("es" if name.endswith("s") else "s")


def _call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)
