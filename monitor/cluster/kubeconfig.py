"""The parts of a kubeconfig that the ``kubernetes`` package reads otherwise than kubectl, or not at
all.

Source: the Kubernetes reference (client.authentication.k8s.io/v1, and the kubeconfig of client-go).
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from monitor.errors import SettingError
from monitor.files.reading import read_file

__all__ = [
    "INLINE",
    "AccessError",
    "current",
    "impersonation",
    "plugin_cluster",
    "read_limited",
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


def current(config: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return the cluster or the user of the current context, to be changed; {} if unknown.

    Keys without a value are removed from ``config`` as well: for kubectl they are absent.
    """

    def named(plural: str, name: Any, key: str) -> dict[str, Any]:
        for entry in config.get(plural) or ():
            if isinstance(entry, dict) and entry.get("name") == name:
                found = entry[key] = _with_values(entry.get(key) or {})
                return found if isinstance(found, dict) else {}
        return {}

    context = named("contexts", config.get("current-context"), "context")
    return named(f"{what}s", context.get(what), what)


def _with_values(found: Any) -> Any:
    if isinstance(found, dict):
        return {
            key: value if key == "extensions" else _with_values(value)
            for key, value in found.items()
            if value is not None and value != ""
        }
    return [_with_values(each) for each in found] if isinstance(found, list) else found


def take_inline(cluster: dict[str, Any], user: dict[str, Any], key: str) -> bytes | None:
    """Take ``key-data`` out of its section and decode it; the package would write it to a file."""
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
