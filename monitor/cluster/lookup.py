"""Looks up facts in other objects: the digests that run, and the former templates of a service.

The digests of images with a tag are in the status of the pods. The former templates are in the
ReplicaSets, or for DeploymentConfigs in the ReplicationControllers, as each kind says. Both are
requested when a rollout is complete, which is rare, so they are neither watched nor kept in memory.
If access is forbidden, events lack them; this is logged once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from operator import itemgetter

import msgspec

from monitor.cluster.api import Api, ApiError, Reason
from monitor.cluster.kinds import KINDS, PODS, Kind, Resource
from monitor.cluster.objects import UNREADABLE
from monitor.cluster.pods import Pod, read_pod
from monitor.cluster.reported import Facts
from monitor.cluster.services import Revision, Service
from monitor.cluster.watch import Scope

__all__ = ["Lookup"]

logger = logging.getLogger("monitor.cluster")

RunningDigests = dict[tuple[str, str, str], dict[str, tuple[str, ...]]]


class Lookup:
    """Requests facts, in the thread of one watch."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._refused: set[tuple[Resource, str]] = set()

    def facts(self, service: Service) -> Facts:
        """Return the facts about one service; raises ApiError if a retry may help."""
        kind = KINDS.get(service.kind)
        if kind is None:
            return Facts()
        revisions = self._revisions(kind, service)
        past: dict[str, frozenset[int]] = {}
        for revision in revisions:
            # The server fills in defaults in ReplicaSets, not in custom resources: where the object
            # names its pods, they tell the current template.
            is_own = bool(service.own_pods) and revision.pods == service.own_pods
            fingerprint = service.fingerprint if is_own else revision.fingerprint
            past[fingerprint] = past.get(fingerprint, frozenset()) | revision.numbers
        digests: dict[str, tuple[str, ...]] = {}
        if kind.has_pods and any("@" not in image for image in service.images.values()):
            # Only pods of this template: there may already be pods of the next one.
            own = next((r.pods for r in revisions if r.fingerprint == service.fingerprint), "")
            selector = ",".join(filter(None, (service.selector, own or service.own_pods)))
            running = _by_service(self._pods(service.namespace, selector))
            digests = running.get((service.namespace, service.kind, service.name), {})
        return Facts(digests, past)

    def running(self, scope: Scope) -> RunningDigests:
        """Return the digests of all running services of a scope, with one list."""
        return _by_service(self._pods(scope.namespace, scope.selector))

    def _revisions(self, kind: Kind, service: Service) -> list[Revision]:
        holder = kind.holder
        if holder is None:
            return []
        # A ReplicationController has none of the labels of the selector.
        selector = service.selector if holder.plural == "replicasets" else ""
        items = list(self._items(holder, service.namespace, selector))
        try:
            found = kind.read_revisions(items)
        except UNREADABLE as error:
            raise ApiError(Reason.BROKEN, f"cannot read {holder.plural}: {error}") from None
        return [revision for revision in found if revision.owner == service.uid]

    def _pods(self, namespace: str, selector: str) -> Iterator[Pod]:
        for item in self._items(PODS, namespace, selector):
            try:
                pod = read_pod(item)
            except UNREADABLE as error:
                raise ApiError(Reason.BROKEN, f"cannot read a Pod: {error}") from None
            if not pod.terminating:
                yield pod

    def _items(self, resource: Resource, namespace: str, selector: str) -> Iterator[msgspec.Raw]:
        """Yield what a list has, page by page: all pods of a cluster may be hundreds of MB."""
        asked = (resource, namespace)
        try:
            for page in self._api.pages(resource.path(namespace), selector=selector):
                yield from page.items or ()
        except ApiError as error:
            if error.reason not in {Reason.FORBIDDEN, Reason.MISSING}:
                raise
            if asked not in self._refused:
                lost = "digests of images with a tag" if resource == PODS else "older revisions"
                where = f"{resource.plural} in {namespace or 'all namespaces'}"
                logger.warning("%s: %s; events lack %s", where, error, lost)
            self._refused.add(asked)
            return
        self._refused.discard(asked)


def _by_service(pods: Iterable[Pod]) -> RunningDigests:
    """Return digests by namespace, kind and name of the service, the newest ready pod's first.

    The same tag may have been pulled at different times, so that pods of one template differ.
    """
    found: RunningDigests = {}
    # Of each pod only this: the first list has all pods of the cluster.
    kept = [
        (pod.ready, pod.created, pod.namespace, {pod.service, pod.owner} - {None}, pod.digests)
        for pod in pods
    ]
    for _, _, namespace, owners, of_pod in sorted(kept, key=itemgetter(0, 1), reverse=True):
        for owner in owners:
            assert owner is not None
            known = found.setdefault((namespace, *owner), {})
            for container, digest in of_pod.items():
                digests = known.get(container, ())
                if digest not in digests:
                    known[container] = (*digests, digest)
    return found
