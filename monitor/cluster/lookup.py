"""Looks up facts in other objects: the digests that run, and the former templates of a service.

The digests of images with a tag are in the status of the pods. The former templates are in the
ReplicaSets, or for DeploymentConfigs in the ReplicationControllers. Both are requested when a
rollout is complete, which is rare, so they are neither watched nor kept in memory. If access is
forbidden, events lack them; this is logged once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import msgspec

from monitor.cluster.api import Api, ApiError, Reason
from monitor.cluster.pods import Pod, read_pod
from monitor.cluster.reported import Facts
from monitor.cluster.services import Revision, Service, read_revisions
from monitor.cluster.watch import Scope, path_of

__all__ = ["Lookup"]

logger = logging.getLogger("monitor.cluster")

_HOLDERS = {"Deployment": "ReplicaSet", "DeploymentConfig": "ReplicationController"}

RunningDigests = dict[tuple[str, str, str], dict[str, str]]


class Lookup:
    """Requests facts, in the thread of one watch."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._refused: set[Scope] = set()

    def facts(self, service: Service) -> Facts:
        """Return the facts about one service; raises ApiError if a retry may help."""
        revisions = self._revisions(service)
        past = {revision.fingerprint: revision.numbers for revision in revisions}
        digests: dict[str, str] = {}
        if any("@" not in image for image in service.images.values()):
            # Only pods of this template: there may already be pods of the next one.
            own = next((r.pods for r in revisions if r.fingerprint == service.fingerprint), "")
            selector = ",".join(filter(None, (service.selector, own)))
            running = _by_service(self._pods(service.namespace, selector))
            digests = running.get((service.namespace, service.kind, service.name), {})
        return Facts(digests, past)

    def running(self, scope: Scope) -> RunningDigests:
        """Return the digests of all running services of a scope, with one list."""
        return _by_service(self._pods(scope.namespace, scope.selector))

    def _revisions(self, service: Service) -> list[Revision]:
        holder = _HOLDERS[service.kind]
        # A ReplicationController has none of the labels of the selector.
        selector = service.selector if holder == "ReplicaSet" else ""
        items = self._items(holder, service.namespace, selector)
        try:
            found = read_revisions(service.kind, items)
        except msgspec.DecodeError as error:
            raise ApiError(Reason.BROKEN, f"cannot read a {holder}: {error}") from None
        return [revision for revision in found if revision.owner == service.uid]

    def _pods(self, namespace: str, selector: str) -> Iterable[Pod]:
        for item in self._items("Pod", namespace, selector):
            try:
                pod = read_pod(item)
            except msgspec.DecodeError as error:
                raise ApiError(Reason.BROKEN, f"cannot read a Pod: {error}") from None
            if not pod.terminating:
                yield pod

    def _items(self, kind: str, namespace: str, selector: str) -> Sequence[msgspec.Raw]:
        scope = Scope(kind, namespace)
        try:
            items = self._api.items(path_of(kind, namespace), selector=selector)
        except ApiError as error:
            if error.reason not in {Reason.FORBIDDEN, Reason.MISSING}:
                raise
            if scope not in self._refused:
                lost = "digests of images with a tag" if kind == "Pod" else "older revisions"
                logger.warning("%s: %s; events lack %s", scope, error, lost)
            self._refused.add(scope)
            return ()
        self._refused.discard(scope)
        return items


def _by_service(pods: Iterable[Pod]) -> RunningDigests:
    """Return digests by namespace, kind and name of the service; of its newest ready pod."""
    found: RunningDigests = {}
    for pod in sorted(pods, key=lambda pod: (pod.ready, pod.created)):
        if pod.service is not None and pod.digests:
            key = (pod.namespace, *pod.service)
            found[key] = found.get(key, {}) | pod.digests
    return found
