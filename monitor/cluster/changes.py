"""Compares an object with its last reported state, and makes the events for the difference; pure.

For each object the last reported state is kept as a :class:`Reported`. :func:`compare_service` and
:func:`compare_pod` compare an observation of the object with it, and :func:`compare_gone` its
deletion. Each returns an event, if any, and the new reported state, to be committed together.

A rollout is reported when it is complete, its revision or template is not the reported one, and the
images or the version of the model have changed. If an image has only a tag, the digests that the
pods run count. It is a rollback if its template was current at a revision before the reported one.
A failure is reported once per revision. The rollout after a failure is reported even if the images
are the same as before, so that no consumer keeps showing the failure.

A list is the truth: if it shows another template under a lower or the same revision, the cluster
was restored from a backup. In a watch, a lower revision is an old look.
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
from monitor.cluster.groups import is_group
from monitor.cluster.mapping import map_object
from monitor.cluster.objects import Template, TemplateMetadata
from monitor.cluster.pods import Pod, with_digest
from monitor.cluster.reported import (
    Facts,
    Reported,
    Rollout,
    former_revisions,
    is_older,
    lacks_digests,
    news_of_images,
    reported_state,
    same_rollout,
    version_differs,
    with_replicas,
)
from monitor.cluster.services import Service
from monitor.messages import ModelEvent

__all__ = [
    "Change",
    "compare_gone",
    "compare_pod",
    "compare_service",
    "event_data",
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


def _has_new_failure(reported: Reported | None, service: Service, context: Context) -> bool:
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
    if service.revision is None:
        return service.fingerprint != reported.failed_fingerprint and not same
    # After a restore of the cluster, another template may have failed under the same number.
    again = context.listed and bool(failure.since)
    again = again and service.fingerprint != reported.failed_fingerprint
    return (service.number != reported.failed_revision or again) and not same


def needs_facts(reported: Reported | None, service: Service, context: Context) -> bool:
    """Return whether the comparison depends on facts from other objects."""
    if not _is_rolled_out(service, context):
        return False
    if reported is None or reported.phase in {"seen", "failed", "removed"}:
        return any("@" not in image for image in service.images.values())
    if not same_rollout(reported, service):
        return True
    # A service that had no pods so far has digests now.
    return bool(service.replicas_ready) and lacks_digests(reported)


def compare_service(
    reported: Reported | None, service: Service, context: Context, facts: Facts | None = None
) -> Change:
    """Compare a service with its reported state."""
    facts = facts or Facts()
    deployed = reported is not None and reported.phase == "told"
    if reported is not None and deployed and is_older(reported, service):
        if not context.listed:
            return Change(reported)
        if not _is_rolled_out(service, context) or same_rollout(reported, service):
            # The cluster went back to the middle of a rollout, to one that had failed, or to the
            # same template with a lower generation: the next rollout must not look older than it.
            reported = _gone_back(reported, service)
    if _is_rolled_out(service, context):
        if deployed:
            assert reported is not None
            return _rolled_out(reported, service, context, facts)
        return _deployed(reported, service, context, facts)
    if _has_new_failure(reported, service, context):
        if deployed and reported is not None and same_rollout(reported, service):
            return Change(with_replicas(reported, service))
        return _failed(reported, service, context)
    if reported is None and context.baseline:
        return Change(reported_state(None, service, context, facts, phase="seen"))
    if deployed and reported is not None and same_rollout(reported, service):
        return Change(with_replicas(reported, service))
    return Change(reported)


def compare_gone(reported: Reported | None, uid: str, context: Context) -> Change:
    """Report an object that was deleted, or that no longer has the watched labels."""
    if reported is None or reported.phase == "removed":
        return Change(reported)
    if reported.phase == "seen" or (reported.kind == "Pod" and not reported.images):
        # Never reported as a service.
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
        template=Template(
            metadata=TemplateMetadata(labels=dict(pod.labels), annotations=dict(pod.annotations)),
            spec=pod.spec,
        ),
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


def _gone_back(reported: Reported, service: Service) -> Reported:
    history = tuple(item for item in reported.history if item[0] <= service.number)
    return msgspec.structs.replace(
        reported,
        revision=service.revision,
        generation=service.generation,
        history=history,
        life=reported.life + 1,
    )


def _deployed(
    reported: Reported | None, service: Service, context: Context, facts: Facts
) -> Change:
    removed = reported is not None and reported.phase == "removed"
    life = 0 if reported is None else reported.life + removed
    after = reported_state(None, service, context, facts, phase="told", life=life)
    existed = context.baseline or (reported is not None and reported.phase == "seen")
    duration = None if existed else _duration(service, context)
    after = msgspec.structs.replace(
        after,
        since=after.since if existed or context.catch_up else context.now,
        rollout=Rollout("deployed", context.now, duration, service.changed_by),
    )
    data = event_data(
        service, after, context, before=None, cause="snapshot" if existed else "created"
    )
    data = msgspec.structs.replace(data, duration=duration)
    return Change(
        after, make_event(DEPLOYED, service.uid, service.revision, life, data=data, context=context)
    )


def _rolled_out(reported: Reported, service: Service, context: Context, facts: Facts) -> Change:
    if same_rollout(reported, service):
        return _same(reported, service, context, facts)
    if not _is_what_runs(reported, service, facts):
        return Change(with_replicas(reported, service))
    # The same revision again with another template, or a lower one: the cluster went back.
    again = service.number == reported.number and service.fingerprint != reported.fingerprint
    life = reported.life + (again or service.number < reported.latest)
    after = _running(reported, service, context, facts, life=life)
    images_changed = news_of_images(reported, after, context.mapping.container)
    version_changed = version_differs(reported, after)
    # A rollback goes to a revision before the last one that was reported, including failed ones.
    back = any(number < reported.latest for number in former_revisions(reported, service, facts))
    if not (images_changed or version_changed or reported.failed_revision is not None):
        return Change(after)
    if back:
        type_, cause = ROLLED_BACK, "rollback"
    elif images_changed:
        type_, cause = UPGRADED, "image-changed"
    else:
        type_, cause = UPGRADED, "version-changed" if version_changed else "recovered"
    return _changed((type_, cause), reported, after, service, context)


def _same(reported: Reported, service: Service, context: Context, facts: Facts) -> Change:
    """Compare what may change without a rollout: digests that were unknown, traffic, replicas."""
    after = with_replicas(reported, service)
    if facts.digests and lacks_digests(reported):
        after = _running(reported, service, context, facts)
        if news_of_images(reported, after, context.mapping.container):
            return _changed((UPGRADED, "image-changed"), reported, after, service, context)
    if service.complete and service.traffic_percent != reported.traffic_percent:
        after = _running(reported, service, context, facts)
        before, now = reported.traffic_percent, service.traffic_percent
        if before is not None and now is not None:
            type_ = UPGRADED if now > before else ROLLED_BACK
            return _changed((type_, "traffic-changed"), reported, after, service, context)
    return Change(after)


def _running(
    reported: Reported, service: Service, context: Context, facts: Facts, *, life: int = 0
) -> Reported:
    after = reported_state(reported, service, context, facts, phase="told", life=life)
    if not is_group(service.uid):
        return after
    # A member whose failure was reported may still be there.
    return msgspec.structs.replace(after, failed_since=reported.failed_since)


def _is_what_runs(reported: Reported, service: Service, facts: Facts) -> bool:
    """Return whether the template in the object is the one of its revision.

    A DeploymentConfig without a trigger for changes keeps its revision, and what runs, until
    someone starts a rollout.
    """
    if service.revision is None or service.revision != reported.revision:
        return True
    if facts.past:
        return service.revision in facts.past.get(service.fingerprint, ())
    return service.kind != "DeploymentConfig"


def _changed(
    what: tuple[str, str], reported: Reported, after: Reported, service: Service, context: Context
) -> Change:
    """Return the event of a type and a cause."""
    type_, cause = what
    duration = _duration(service, context) if cause != "traffic-changed" else None
    outcome = "rolledback" if type_ == ROLLED_BACK else "upgraded"
    after = msgspec.structs.replace(
        after,
        since=context.now,
        rollout=Rollout(outcome, context.now, duration, service.changed_by),  # type: ignore[arg-type]
        # A canary counts next to the new version only if it is newer than that.
        canary="",
        canary_version=None,
    )
    # Without the controller's annotation, the generation distinguishes changes.
    data = event_data(service, after, context, before=reported, cause=cause)
    data = msgspec.structs.replace(data, duration=duration)
    event = make_event(type_, service.uid, service.number, after.life, data=data, context=context)
    return Change(after, event)


def _duration(service: Service, context: Context) -> float | None:
    """Return the s from a rollout's begin to its end, as seen, or else as the object says."""
    if context.began is not None:
        return max(0.0, context.now - context.began)
    began, ended = service.changed_at, service.completed_at
    return ended - began if began is not None and ended is not None and ended >= began else None


def _failed(reported: Reported | None, service: Service, context: Context) -> Change:
    failure = service.failure
    assert failure is not None
    before = reported if reported is not None and reported.phase == "told" else None
    life = 0
    if reported is not None:
        # What fails under a number that had failed before: the cluster went back.
        again = service.number <= (reported.failed_revision or 0)
        life = reported.life + (again or reported.phase == "removed")
    wanted = reported_state(before, service, context, Facts(), phase="failed", life=life)
    duration = _duration(service, context)
    after = msgspec.structs.replace(
        before or wanted,
        failed_revision=service.number,
        failed_since=failure.since,
        failed_fingerprint=service.fingerprint,
        life=life,
        rollout=Rollout("failed", context.now, duration, service.changed_by),
    )
    data = msgspec.structs.replace(
        event_data(service, wanted, context, before=before, cause="failed"),
        reason=failure.reason,
        message=failure.message,
        duration=duration,
    )
    return Change(
        after, make_event(FAILED, service.uid, service.number, life, data=data, context=context)
    )


def event_data(
    service: Service, after: Reported, context: Context, *, before: Reported | None, cause: str
) -> ModelEvent:
    """Return the data of an event of a service; ``after`` is its new reported state."""
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
        changed_by=service.changed_by,
        change_cause=service.change_cause,
        traffic_percent=service.traffic_percent,
    )
