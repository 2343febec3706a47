"""What a change of an object means: the events that it makes, and what is known after it; pure.

For every object the last state told is kept as a :class:`Told`. A new look at the object is
compared with it by :func:`judge_service` or :func:`judge_pod`, its end by :func:`judge_gone`;
each gives what to tell (or nothing) and what is then told, to be committed together.

A rollout is news when it is complete, its revision is another than the one told, and the
images (with the digests that the pods run, where a tag alone names them) or the model's
version are others. It is a rollback when its template was already current at a revision
before the one told. What fails is told once a revision, and what follows a failure is told
also where the images are the old ones again, so that nobody goes on believing in the failure.
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
from monitor.cluster.services import Service
from monitor.cluster.told import (
    Facts,
    Told,
    former_revisions,
    images_differ,
    same_revision,
    tell,
    version_differs,
    with_digest,
)
from monitor.messages import ModelEvent

__all__ = [
    "Verdict",
    "judge_gone",
    "judge_pod",
    "judge_service",
    "wants_facts",
]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a look means: an event or none, and what is told from now on.

    ``told`` is None where nothing needs to be kept; the same object as before means that
    nothing changed.
    """

    told: Told | None
    event: Event | None = None


def _is_rolled_out(service: Service, context: Context) -> bool:
    """Say whether a service is rolled out.

    While we watch, we see the moment at which it is complete. What is found by the first list
    may have lost a replica since, and is rolled out all the same.
    """
    return service.complete or (context.catch_up and service.stands)


def _has_failed_anew(told: Told | None, service: Service) -> bool:
    """Say whether a rollout failed of which nothing was told yet.

    A controller that takes up a former template changes revision and generation first: until its
    next look at the pods the status has the condition of the rollout that failed before.
    """
    failure = service.failure
    if failure is None:
        return False
    if told is None or told.phase == "removed":
        return True
    same = bool(failure.since) and failure.since == told.failed_since
    return service.revision != told.failed_revision and not same


def wants_facts(told: Told | None, service: Service, context: Context) -> bool:
    """Say whether judging this look depends on facts that other objects hold."""
    if not _is_rolled_out(service, context):
        return False
    if told is None or told.phase in {"seen", "failed", "removed"}:
        return any("@" not in image for image in service.images.values())
    return not same_revision(told, service)


def judge_service(
    told: Told | None, service: Service, context: Context, facts: Facts | None = None
) -> Verdict:
    """Judge a look at a Deployment or DeploymentConfig."""
    facts = facts or Facts()
    standing = told is not None and told.phase == "told"
    if told is not None and (service.revision or 0) < (told.revision or 0) and standing:
        # Revisions only grow: this look is from before what was told.
        return Verdict(told)
    if _is_rolled_out(service, context):
        if standing:
            assert told is not None
            return _rolled_out(told, service, context, facts)
        return _deployed(told, service, context, facts)
    if _has_failed_anew(told, service):
        if standing and told is not None and same_revision(told, service):
            return Verdict(told)
        return _failed(told, service, context)
    if told is None and context.baseline:
        return Verdict(tell(None, service, context, facts, phase="seen"))
    return Verdict(told)


def judge_gone(told: Told | None, uid: str, context: Context) -> Verdict:
    """Judge that an object is gone, or no longer carries the labels that are watched."""
    if told is None or told.phase == "removed":
        return Verdict(told)
    if told.kind == "Pod" or told.phase == "seen":
        return Verdict(None)
    after = msgspec.structs.replace(told, phase="removed", removed_at=context.now)
    data = ModelEvent(
        cluster=context.cluster,
        namespace=told.namespace,
        kind=told.kind,
        name=told.name,
        uid=uid,
        model=told.model,
        version=told.version,
        previous_version=told.version,
        images=image_changes(told.images, {}),
        revision=told.revision,
        replicas_wanted=0,
        replicas_ready=0,
        cause="deleted",
        catch_up=context.catch_up,
    )
    if told.phase == "failed":
        # It never stood, so nobody was told that it did.
        return Verdict(after)
    return Verdict(
        after, make_event(REMOVED, uid, told.revision, told.life, data=data, context=context)
    )


def judge_pod(told: Told | None, pod: Pod, context: Context) -> Verdict:
    """Judge a look at a Pod: news when it is ready for the first time."""
    if told is not None or not pod.ready or pod.terminating:
        return Verdict(told)
    images = {name: with_digest(image, pod.digests.get(name)) for name, image in pod.images.items()}
    kind, name = pod.service or ("Pod", pod.name)
    mapped = map_object(
        context.mapping,
        name=name,
        labels=pod.labels,
        annotations=pod.annotations,
        images=images,
    )
    after = Told("Pod", pod.namespace, pod.name, "told")
    if context.baseline:
        return Verdict(after)
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
    # Keyed by its service, so that a service and its pods stay in order.
    event = make_event(
        POD_READY, pod.uid, None, 0, data=data, context=context, key=f"{pod.namespace}/{name}"
    )
    return Verdict(after, event)


def _deployed(told: Told | None, service: Service, context: Context, facts: Facts) -> Verdict:
    removed = told is not None and told.phase == "removed"
    life = 0 if told is None else told.life + removed
    after = tell(None, service, context, facts, phase="told", life=life)
    stood = context.baseline or (told is not None and told.phase == "seen")
    data = _data(service, after, context, before=None, cause="snapshot" if stood else "created")
    return Verdict(
        after, make_event(DEPLOYED, service.uid, service.revision, life, data=data, context=context)
    )


def _rolled_out(told: Told, service: Service, context: Context, facts: Facts) -> Verdict:
    if same_revision(told, service):
        return Verdict(told)
    after = tell(told, service, context, facts, phase="told")
    images_changed = images_differ(told.images, after.images)
    version_changed = version_differs(told, after)
    # Back means: to before the last revision that anybody heard of, failed ones included.
    latest = max(told.revision or 0, told.failed_revision or 0)
    back = any(number < latest for number in former_revisions(told, service, facts))
    if not (images_changed or version_changed or told.failed_revision is not None):
        return Verdict(after)
    if back:
        type_, cause = ROLLED_BACK, "rollback"
    elif images_changed:
        type_, cause = UPGRADED, "image-changed"
    else:
        type_, cause = UPGRADED, "version-changed" if version_changed else "recovered"
    revision = service.revision
    if revision is None:
        # Only without the controller's annotation: then the generation tells changes apart.
        revision = service.generation
    data = _data(service, after, context, before=told, cause=cause)
    return Verdict(
        after, make_event(type_, service.uid, revision, told.life, data=data, context=context)
    )


def _failed(told: Told | None, service: Service, context: Context) -> Verdict:
    standing = told is not None and told.phase == "told"
    since = service.failure.since if service.failure else ""
    if standing and told is not None:
        after = msgspec.structs.replace(told, failed_revision=service.revision, failed_since=since)
        life = told.life
    else:
        life = told.life + (told.phase == "removed") if told is not None else 0
        after = msgspec.structs.replace(
            tell(None, service, context, Facts(), phase="failed", life=life),
            failed_revision=service.revision,
            failed_since=since,
        )
    wanted = tell(told if standing else None, service, context, Facts(), phase="told")
    data = msgspec.structs.replace(
        _data(service, wanted, context, before=told if standing else None, cause="failed"),
        reason=service.failure.reason if service.failure else None,
        message=service.failure.message if service.failure else None,
    )
    return Verdict(
        after, make_event(FAILED, service.uid, service.revision, life, data=data, context=context)
    )


def _data(
    service: Service, after: Told, context: Context, *, before: Told | None, cause: str
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
