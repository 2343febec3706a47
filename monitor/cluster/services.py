"""A model service as the cluster shows it, whatever its kind; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from monitor.cluster.objects import Template

__all__ = ["Failure", "Revision", "Service"]


class Failure(NamedTuple):
    """Why the controller gave up a rollout, in its words, and since when; empty if unknown."""

    reason: str
    message: str
    since: str = ""


class Service(NamedTuple):
    """A model service as the cluster shows it now.

    ``images`` has the images of the template by container, including init containers. ``revision``
    grows with each new template; None if the kind has none, or the controller has not processed the
    object. ``complete`` means that all replicas have this revision and are available.
    ``rolled_out`` means that the controller completed this rollout, but a replica may be missing
    now. ``failure`` is set if the controller gave up the rollout; just after a rollback it is still
    the previous one. ``version`` is the model's version where the kind says it itself,
    ``traffic_percent`` the share that it gets of the traffic, if the object says so. ``changed_at``
    and ``completed_at`` are by the cluster's clock, in s since the epoch.
    """

    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: str
    generation: int
    revision: int | None
    fingerprint: str
    images: dict[str, str]
    replicas_wanted: int | None
    replicas_ready: int | None
    complete: bool
    rolled_out: bool
    failure: Failure | None
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    selector: str = ""
    own_pods: str = ""
    template: Template = Template()
    version: str | None = None
    traffic_percent: int | None = None
    created: str = ""
    changed_by: str | None = None
    changed_at: float | None = None
    completed_at: float | None = None

    @property
    def number(self) -> int:
        """The revision, or the generation of a kind without revisions: both only grow."""
        return self.generation if self.revision is None else self.revision

    @property
    def change_cause(self) -> str | None:
        """Why it was changed, as the user noted."""
        return self.annotations.get("kubernetes.io/change-cause") or None


class Revision(NamedTuple):
    """A template of a service, and the revisions at which it was current.

    ``owner`` is the uid of the service; ``pods`` is the label selector of its pods.
    """

    owner: str
    fingerprint: str
    numbers: frozenset[int]
    pods: str
