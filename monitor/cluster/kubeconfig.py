"""Reads a kubeconfig, or the service account of a pod, as kubectl does.

The ``kubernetes`` package takes 30 MB of memory, writes keys to files, and reads some parts
otherwise than kubectl. It is imported only for an ``auth-provider``, which kubectl no longer has.

Source: the Kubernetes reference (client.authentication.k8s.io/v1, and the kubeconfig of client-go).
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import urllib3

from monitor.errors import SettingError
from monitor.files.reading import read_file

__all__ = [
    "INLINE",
    "AccessError",
    "Server",
    "authorization_of_provider",
    "current",
    "impersonation",
    "plugin_cluster",
    "server_of",
    "server_of_pod",
    "take_inline",
    "take_token_file",
]

# What may be inside the kubeconfig, under these names with -data.
INLINE = ("certificate-authority", "client-certificate", "client-key")

_MAX_FILE_BYTES = 4 * 1024 * 1024
# What a plugin gets of the cluster, besides its authority and its own settings.
_FOR_PLUGINS = (
    "server",
    "tls-server-name",
    "insecure-skip-tls-verify",
    "proxy-url",
    "disable-compression",
)
_PLUGIN_SETTINGS = "client.authentication.k8s.io/exec"


class AccessError(SettingError):
    """The kubeconfig or the service account cannot be used."""

    def __init__(self, problem: str) -> None:
        super().__init__((), problem)


@dataclass(frozen=True, slots=True)
class Server:
    """A server, and how it knows us: the value of Authorization, and PEM."""

    host: str
    authorization: str | None = None
    authority: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None
    verify: bool = True


def current(config: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return the cluster or the user of the current context, to be changed; {} for no user.

    Raises AccessError if there is no such cluster.
    """

    def named(plural: str, name: Any, key: str) -> dict[str, Any] | None:
        for entry in config.get(plural) or ():
            if isinstance(entry, dict) and entry.get("name") == name:
                found = entry.get(key)
                return found if isinstance(found, dict) else {}
        return None

    context = named("contexts", config.get("current-context"), "context")
    if context is None:
        raise AccessError(f"no context is named {config.get('current-context')!r}, the current one")
    found = named(f"{what}s", context.get(what), what)
    if found is None and what == "cluster":
        raise AccessError(f"no cluster is named {context.get(what)!r}, that of the context")
    return found or {}


def server_of(
    cluster: Mapping[str, Any],
    user: Mapping[str, Any],
    inline: Mapping[str, bytes | None],
    *,
    folder: Path,
    authorization: str | None,
) -> Server:
    """Return the server of a kubeconfig, with what is ``inline`` or in files next to it.

    ``authorization`` is that of a provider, if there is one.
    """
    host = cluster.get("server")
    if not isinstance(host, str) or not host:
        raise AccessError("the cluster has no server")

    def content(section: Mapping[str, Any], key: str) -> bytes | None:
        name = section.get(key)
        if inline[key] is not None or not isinstance(name, str) or not name:
            return inline[key]
        return read_limited(os.path.normpath(folder / name))

    secure = host.startswith("https")
    return Server(
        host=host.rstrip("/"),
        authorization=authorization or _authorization(user),
        authority=content(cluster, "certificate-authority") if secure else None,
        certificate=content(user, "client-certificate") if secure else None,
        key=content(user, "client-key") if secure else None,
        verify=not cluster.get("insecure-skip-tls-verify"),
    )


def server_of_pod(service_account: Path) -> Server:
    """Return the server of the cluster of this pod; raises AccessError outside a pod."""
    host, port = (os.environ.get(f"KUBERNETES_SERVICE_{name}") for name in ("HOST", "PORT"))
    if not host or not port:
        raise AccessError("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set")
    found = {}
    for name in ("token", "ca.crt"):
        found[name] = (read_limited(str(service_account / name)) or b"").strip()
        if not found[name]:
            raise AccessError(f"{name} is empty")
    return Server(
        host=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        authorization=f"Bearer {found['token'].decode(errors='replace')}",
        authority=found["ca.crt"],
    )


def _authorization(user: Mapping[str, Any]) -> str | None:
    if token := user.get("token"):
        return f"Bearer {str(token).strip()}"
    name, password = user.get("username"), user.get("password")
    if name is None or password is None:
        return None
    return urllib3.make_headers(basic_auth=f"{name}:{password}")["authorization"]


def authorization_of_provider(config: Mapping[str, Any], folder: Path) -> str | None:
    """Return what an ``auth-provider`` of the package gives; raises what the package raises."""
    try:
        from kubernetes import client
        from kubernetes.config.kube_config import KubeConfigLoader
    except ModuleNotFoundError:
        problem = "an auth-provider needs the Python module kubernetes; use a plugin (exec)"
        raise AccessError(problem) from None
    configuration: Any = client.Configuration()
    loader: Any = KubeConfigLoader
    try:
        loader(config_dict=config, config_base_path=str(folder)).load_and_set(configuration)
    except AttributeError:
        # So it fails for a provider whose tool or package is not there.
        raise AccessError("the auth-provider gives no token; use a plugin (exec)") from None
    for setting in configuration.auth_settings().values():
        if setting["in"] == "header" and setting["value"]:
            return str(setting["value"]).strip()
    return None


def take_inline(cluster: dict[str, Any], user: dict[str, Any], key: str) -> bytes | None:
    """Take ``key-data`` out of its section and decode it; it comes before a file."""
    section = cluster if key == "certificate-authority" else user
    data = section.pop(f"{key}-data", None)
    if not data:
        return None
    section.pop(key, None)
    try:
        return base64.b64decode("".join(str(data).split()), validate=True)
    except (binascii.Error, ValueError):
        raise AccessError(f"{key}-data is not base64") from None


def take_token_file(user: dict[str, Any], folder: Path) -> None:
    """Read ``tokenFile`` with a limit: the package would read whatever it is, without an end.

    It comes before ``token``, as in kubectl; without the file that is used.
    """
    name = user.get("tokenFile")
    if not isinstance(name, str) or not name:
        return
    file = os.path.normpath(folder / name)
    try:
        user["token"] = (read_limited(file) or b"").decode()
    except UnicodeDecodeError:
        raise AccessError(f"{file} is not UTF-8 text") from None
    except AccessError:
        if not user.get("token"):
            raise


def plugin_cluster(
    cluster: Mapping[str, Any], authority: bytes | None, *, folder: Path
) -> dict[str, Any]:
    """Return what a plugin gets of the cluster with ``provideClusterInfo``."""
    found = {key: cluster[key] for key in _FOR_PLUGINS if cluster.get(key)}
    if authority is None and isinstance(name := cluster.get("certificate-authority"), str):
        authority = read_limited(os.path.normpath(folder / name)) if name else None
    if authority is not None:
        found["certificate-authority-data"] = base64.b64encode(authority).decode()
    for extension in cluster.get("extensions") or ():
        if isinstance(extension, dict) and extension.get("name") == _PLUGIN_SETTINGS:
            found["config"] = extension.get("extension")
    return found


def impersonation(user: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the headers for ``as``, ``as-uid``, ``as-groups`` and ``as-user-extra``."""
    if not user.get("as"):
        return []
    found = [("Impersonate-User", user["as"]), ("Impersonate-Uid", user.get("as-uid"))]
    found += [("Impersonate-Group", group) for group in user.get("as-groups") or ()]
    extra = user.get("as-user-extra")
    for key, values in extra.items() if isinstance(extra, dict) else ():
        found += [(f"Impersonate-Extra-{quote(str(key), safe='')}", value) for value in values]
    return [(name, str(value)) for name, value in found if value]


def read_limited(file: str | None) -> bytes | None:
    """Return the content of a regular file of at most 4 MiB; None without a file."""
    if not file:
        return None
    try:
        return read_file(file, max_bytes=_MAX_FILE_BYTES)
    except OSError as error:
        raise AccessError(f"cannot read {file}: {error.strerror}") from None
