"""The section ``cluster`` of the config."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from monitor.cluster.events import link_problem
from monitor.cluster.kinds import KINDS
from monitor.cluster.kinds.custom import CustomKindSettings
from monitor.cluster.mapping import MappingSettings
from monitor.errors import ConfigError, SettingError
from monitor.files.reading import read_file
from monitor.files.yaml_nodes import compose, construct, decode
from monitor.settings import Reloadable, Seconds, Section, verify_each

__all__ = ["ClusterSettings", "Kind", "read_kubeconfig"]

Kind = Literal[
    "Deployment",
    "DeploymentConfig",
    "StatefulSet",
    "DaemonSet",
    "ReplicaSet",
    "Pod",
    "Rollout",
    "InferenceService",
    "KnativeService",
]

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
# Each namespace and kind is a connection and a thread.
_MAX_NAMESPACES = 50
_MAX_KUBECONFIG_BYTES = 4 * 1024 * 1024
_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_.-]{0,198}[A-Za-z0-9])?$")]


class ClusterSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which cluster's objects are watched, and where their events go."""

    # where the events go
    topic: Reloadable[str] = "model-updates"
    # empty: all
    namespaces: Reloadable[tuple[str, ...]] = ()
    # which objects count, in Kubernetes' syntax; empty: all
    label_selector: Reloadable[str] = "app.kubernetes.io/component=model"
    # what is watched; a kind that the cluster lacks is looked for again
    kinds: Reloadable[tuple[Kind, ...]] = ("Deployment", "DeploymentConfig", "Pod")
    # custom resources that are watched as well
    custom_kinds: Reloadable[tuple[CustomKindSettings, ...]] = ()
    # without one the pod's service account is used
    kubeconfig: Reloadable[str | None] = None
    # how events name this cluster
    name: Reloadable[_Name] = "cluster-1"
    # which model an object serves, and in which version
    mapping: Reloadable[MappingSettings] = MappingSettings()
    # the page of an object in the console, with {cluster}, {namespace}, {kind}, {plural}, {name},
    # {uid}, {model} and {version}; events carry it
    link: Reloadable[str | None] = None
    # s the events stay in the table model_event
    keep_events: Reloadable[Seconds] = 7776000.0

    def verify(self) -> None:
        """Check the names and the kubeconfig."""
        verify_each(
            self._verify_namespaces,
            self._verify_kinds,
            self._verify_custom_kinds,
            self._verify_link,
            self._verify_topic,
            self._verify_mapping,
            self._verify_kubeconfig,
        )

    def _verify_namespaces(self) -> None:
        for index, namespace in enumerate(self.namespaces):
            if not _NAMESPACE.fullmatch(namespace):
                raise SettingError(
                    ("namespaces", index), f"{namespace!r} is not the name of a namespace"
                )
            if namespace in self.namespaces[:index]:
                raise SettingError(("namespaces", index), f"{namespace} is listed twice")
        if len(self.namespaces) > _MAX_NAMESPACES:
            raise SettingError(
                ("namespaces",),
                f"more than {_MAX_NAMESPACES}; leave it empty to watch all, and use label_selector",
            )

    def _verify_kinds(self) -> None:
        if not self.kinds and not self.custom_kinds:
            raise SettingError(("kinds",), "is empty: there is nothing to watch")
        if len(set(self.kinds)) != len(self.kinds):
            raise SettingError(("kinds",), "lists a kind twice")

    def _verify_custom_kinds(self) -> None:
        names: set[str] = set(KINDS)
        for index, custom in enumerate(self.custom_kinds):
            if custom.kind in names:
                problem = f"{custom.kind} is the name of another kind"
                raise SettingError(("custom_kinds", index, "kind"), problem)
            names.add(custom.kind)
            try:
                custom.verify()
            except SettingError as error:
                raise error.under("custom_kinds", index) from None

    def _verify_link(self) -> None:
        if self.link is not None and (problem := link_problem(self.link) or ""):
            raise SettingError(("link",), problem)

    def _verify_topic(self) -> None:
        if not self.topic:
            raise SettingError(("topic",), "is empty")

    def _verify_mapping(self) -> None:
        try:
            self.mapping.verify()
        except SettingError as error:
            raise error.under("mapping") from None

    def _verify_kubeconfig(self) -> None:
        kubeconfig = self.kubeconfig_path()
        if kubeconfig is not None:
            read_kubeconfig(kubeconfig)

    def kubeconfig_path(self) -> Path | None:
        """Return the path of the kubeconfig; a relative one is first in $CREDENTIALS_DIRECTORY."""
        if self.kubeconfig is None:
            return None
        path = Path(self.kubeconfig).expanduser()
        credentials = os.environ.get("CREDENTIALS_DIRECTORY")
        if credentials and not path.is_absolute() and (Path(credentials) / path).exists():
            return Path(credentials) / path
        return path


def read_kubeconfig(file: Path) -> dict[str, Any]:
    """Return the kubeconfig; raise SettingError for a file without a cluster.

    The error never shows the file's secrets.
    """

    def refuse(problem: str) -> SettingError:
        return SettingError(("kubeconfig",), problem)

    name = str(file)
    try:
        content = read_file(file, max_bytes=_MAX_KUBECONFIG_BYTES)
        found = construct(name, compose(name, decode(name, content)))
    except OSError as error:
        raise refuse(f"cannot read {file}: {error.strerror}") from None
    except ConfigError as error:
        place = name if error.line is None else f"{name}:{error.line}"
        raise refuse(f"{place}: not YAML") from None
    clusters = found.get("clusters") if isinstance(found, dict) else None
    if not isinstance(clusters, list) or not clusters:
        raise refuse(f"{file} is not a kubeconfig: it has no clusters")
    return dict(found)
