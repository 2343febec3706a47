"""Compares an object with its last reported state, and makes the events for the difference; pure.

For each object the last reported state is kept as a :class:`Reported`. :func:`compare_service` and
:func:`compare_pod` compare an observation of the object with it, and :func:`compare_gone` its
deletion. Each returns an event, if any, and the new reported state, to be committed together.

A rollout is reported when it is complete, its revision is not the reported one, and the images or
the version of the model have changed. If an image has only a tag, the digest that the pods run
counts. It is a rollback if its template was current at a revision before the reported one. A
failure is reported once per revision. The rollout after a failure is reported even if the images
are the same as before, so that no consumer keeps showing the failure.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from monitor.cluster.events import (
    DEPLOYED,
    FAILED,
    POD_READY,
    REMOVED,
    ROLLED_BACK,
    UPGRADED,
    Context,
    Event,
    image_changes,
    make_event,
)
from monitor.cluster.mapping import map_object
from monitor.cluster.pods import Pod
from monitor.cluster.reported import (
    Facts,
    Reported,
    former_revisions,
    images_differ,
    reported_state,
    same_revision,
    version_differs,
    with_digest,
)
from monitor.cluster.services import Service
from monitor.messages import ModelEvent

__all__ = [
    "Change",
    "compare_gone",
    "compare_pod",
    "compare_service",
    "needs_facts",
]


@dataclass(frozen=True, slots=True)
class Change:
    """The new reported state of an object, and an event if there is something to report.

    No state to keep is ``reported=None``; the previous object means that nothing changed.
    """

    reported: Reported | None
    event: Event | None = None


def _is_rolled_out(service: Service, context: Context) -> bool:
    """Return whether the service is rolled out.

    A watch sees the moment when the rollout is complete. A service in the first list may have lost
    a replica since then, and still counts as rolled out.
    """
    return service.complete or (context.catch_up and service.rolled_out)


def _has_new_failure(reported: Reported | None, service: Service) -> bool:
    """Return whether a rollout failed and this failure was not reported yet.

    On a rollback the controller first changes revision and generation. Until it updates the status,
    the status still has the condition of the rollout that failed before.
    """
    failure = service.failure
    if failure is None:
        return False
    if reported is None or reported.phase == "removed":
        return True
    same = bool(failure.since) and failure.since == reported.failed_since
    return service.revision != reported.failed_revision and not same


def needs_facts(reported: Reported | None, service: Service, context: Context) -> bool:
    """Return whether the comparison depends on facts from other objects."""
    if not _is_rolled_out(service, context):
        return False
    if reported is None or reported.phase in {"seen", "failed", "removed"}:
        return any("@" not in image for image in service.images.values())
    return not same_revision(reported, service)


def compare_service(
    reported: Reported | None, service: Service, context: Context, facts: Facts | None = None
) -> Change:
    """Compare a Deployment or DeploymentConfig with its reported state."""
    facts = facts or Facts()
    deployed = reported is not None and reported.phase == "told"
    if reported is not None and (service.revision or 0) < (reported.revision or 0) and deployed:
        # Revisions only grow: this observation is older than the reported state.
        return Change(reported)
    if _is_rolled_out(service, context):
        if deployed:
            assert reported is not None
            return _rolled_out(reported, service, context, facts)
        return _deployed(reported, service, context, facts)
    if _has_new_failure(reported, service):
        if deployed and reported is not None and same_revision(reported, service):
            return Change(reported)
        return _failed(reported, service, context)
    if reported is None and context.baseline:
        return Change(reported_state(None, service, context, facts, phase="seen"))
    return Change(reported)


def compare_gone(reported: Reported | None, uid: str, context: Context) -> Change:
    """Report an object that was deleted, or that no longer has the watched labels."""
    if reported is None or reported.phase == "removed":
        return Change(reported)
    if reported.kind == "Pod" or reported.phase == "seen":
        return Change(None)
    after = msgspec.structs.replace(reported, phase="removed", removed_at=context.now)
    if reported.phase == "failed":
        # It was never reported as deployed.
        return Change(after)
    data = ModelEvent(
        cluster=context.cluster,
        namespace=reported.namespace,
        kind=reported.kind,
        name=reported.name,
        uid=uid,
        model=reported.model,
        version=reported.version,
        previous_version=reported.version,
        images=image_changes(reported.images, {}),
        revision=reported.revision,
        replicas_wanted=0,
        replicas_ready=0,
        cause="deleted",
        catch_up=context.catch_up,
    )
    return Change(
        after,
        make_event(REMOVED, uid, reported.revision, reported.life, data=data, context=context),
    )


def compare_pod(reported: Reported | None, pod: Pod, context: Context) -> Change:
    """Report a Pod when it is ready for the first time."""
    if reported is not None or not pod.ready or pod.terminating:
        return Change(reported)
    images = {name: with_digest(image, pod.digests.get(name)) for name, image in pod.images.items()}
    kind, name = pod.service or ("Pod", pod.name)
    mapped = map_object(
        context.mapping,
        name=name,
        labels=pod.labels,
        annotations=pod.annotations,
        images=images,
    )
    after = Reported("Pod", pod.namespace, pod.name, "told")
    if context.baseline:
        return Change(after)
    data = ModelEvent(
        cluster=context.cluster,
        namespace=pod.namespace,
        kind="Pod",
        name=pod.name,
        uid=pod.uid,
        service=f"{kind}/{name}" if pod.service else None,
        model=mapped.model,
        version=mapped.version,
        images=image_changes({}, images),
        cause="created",
        catch_up=context.catch_up,
    )
    # The key is that of its service, so that events of a service and its pods stay in order.
    event = make_event(
        POD_READY, pod.uid, None, 0, data=data, context=context, key=f"{pod.namespace}/{name}"
    )
    return Change(after, event)


def _deployed(
    reported: Reported | None, service: Service, context: Context, facts: Facts
) -> Change:
    removed = reported is not None and reported.phase == "removed"
    life = 0 if reported is None else reported.life + removed
    after = reported_state(None, service, context, facts, phase="told", life=life)
    existed = context.baseline or (reported is not None and reported.phase == "seen")
    data = _data(service, after, context, before=None, cause="snapshot" if existed else "created")
    return Change(
        after, make_event(DEPLOYED, service.uid, service.revision, life, data=data, context=context)
    )


def _rolled_out(reported: Reported, service: Service, context: Context, facts: Facts) -> Change:
    if same_revision(reported, service):
        return Change(reported)
    after = reported_state(reported, service, context, facts, phase="told")
    images_changed = images_differ(reported.images, after.images)
    version_changed = version_differs(reported, after)
    # A rollback goes to a revision before the last one that was reported, including failed ones.
    latest = max(reported.revision or 0, reported.failed_revision or 0)
    back = any(number < latest for number in former_revisions(reported, service, facts))
    if not (images_changed or version_changed or reported.failed_revision is not None):
        return Change(after)
    if back:
        type_, cause = ROLLED_BACK, "rollback"
    elif images_changed:
        type_, cause = UPGRADED, "image-changed"
    else:
        type_, cause = UPGRADED, "version-changed" if version_changed else "recovered"
    # Without the controller's annotation, the generation distinguishes changes.
    revision = service.generation if service.revision is None else service.revision
    data = _data(service, after, context, before=reported, cause=cause)
    return Change(
        after, make_event(type_, service.uid, revision, reported.life, data=data, context=context)
    )


def _failed(reported: Reported | None, service: Service, context: Context) -> Change:
    failure = service.failure
    assert failure is not None
    before = reported if reported is not None and reported.phase == "told" else None
    life = 0 if reported is None else reported.life + (reported.phase == "removed")
    wanted = reported_state(before, service, context, Facts(), phase="failed", life=life)
    after = msgspec.structs.replace(
        before or wanted, failed_revision=service.revision, failed_since=failure.since
    )
    data = msgspec.structs.replace(
        _data(service, wanted, context, before=before, cause="failed"),
        reason=failure.reason,
        message=failure.message,
    )
    return Change(
        after, make_event(FAILED, service.uid, service.revision, life, data=data, context=context)
    )


def _data(
    service: Service, after: Reported, context: Context, *, before: Reported | None, cause: str
) -> ModelEvent:
    return ModelEvent(
        cluster=context.cluster,
        namespace=service.namespace,
        kind=service.kind,
        name=service.name,
        uid=service.uid,
        model=after.model,
        version=after.version,
        previous_version=before.version if before is not None else None,
        images=image_changes(before.images if before is not None else {}, after.images),
        revision=service.revision,
        replicas_wanted=service.replicas_wanted,
        replicas_ready=service.replicas_ready,
        cause=cause,
        catch_up=context.catch_up and cause != "snapshot",
    )
