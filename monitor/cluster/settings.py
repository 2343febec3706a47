"""The section ``cluster`` of the config."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from monitor.cluster.mapping import MappingSettings
from monitor.errors import SettingError
from monitor.settings import Seconds, Section

__all__ = ["ClusterSettings", "Kind"]

Kind = Literal["Deployment", "DeploymentConfig", "Pod"]

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
# Each namespace and kind is a connection and a thread.
_MAX_NAMESPACES = 50
_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_.-]{0,198}[A-Za-z0-9])?$")]


class ClusterSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which cluster's objects are watched, and where their events go."""

    # where the events go
    topic: str = "model-updates"
    # empty: all
    namespaces: tuple[str, ...] = ()
    # which objects count, in Kubernetes' syntax; empty: all
    label_selector: str = "app.kubernetes.io/component=model"
    # what is watched; a kind that the cluster does not have is waited for
    kinds: tuple[Kind, ...] = ("Deployment", "DeploymentConfig", "Pod")
    # without one the pod's service account is used
    kubeconfig: str | None = None
    # how events name this cluster
    name: _Name = "cluster-1"
    mapping: MappingSettings = MappingSettings()
    # s the events stay in the table model_event
    keep_events: Seconds = 7776000.0

    def verify(self) -> None:
        """Check the names, and that the kubeconfig is there."""
        for index, namespace in enumerate(self.namespaces):
            if not _NAMESPACE.fullmatch(namespace):
                raise SettingError(("namespaces", index), f"{namespace!r} is no namespace's name")
            if namespace in self.namespaces[:index]:
                raise SettingError(("namespaces", index), f"{namespace} stands here twice")
        if len(self.namespaces) > _MAX_NAMESPACES:
            raise SettingError(
                ("namespaces",),
                f"more than {_MAX_NAMESPACES}; leave it empty to watch all, by label_selector",
            )
        if not self.kinds:
            raise SettingError(("kinds",), "names nothing to watch")
        if len(set(self.kinds)) != len(self.kinds):
            raise SettingError(("kinds",), "names a kind twice")
        if not self.topic:
            raise SettingError(("topic",), "is empty")
        try:
            self.mapping.verify()
        except SettingError as error:
            raise error.under("mapping") from None
        kubeconfig = self.kubeconfig_path()
        if kubeconfig is not None:
            try:
                with kubeconfig.open("rb"):
                    pass
            except OSError as error:
                raise SettingError(
                    ("kubeconfig",), f"cannot read {kubeconfig}: {error.strerror}"
                ) from None

    def kubeconfig_path(self) -> Path | None:
        """Return where the kubeconfig is; a relative name first in $CREDENTIALS_DIRECTORY."""
        if self.kubeconfig is None:
            return None
        path = Path(self.kubeconfig).expanduser()
        credentials = os.environ.get("CREDENTIALS_DIRECTORY")
        if credentials and not path.is_absolute() and (Path(credentials) / path).exists():
            return Path(credentials) / path
        return path
