"""GET /model and /model-update: the model services that run now, and the last model events."""

from __future__ import annotations

import time
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from monitor.cluster.reported import Reported
from monitor.store import Connection, Store
from monitor.store.cursor import Number, cursor_of
from monitor.web.http.answers import item_list, parse_cursor
from monitor.web.http.parameters import known_parameters
from monitor.web.http.schemas import listed
from monitor.web.routes.history import Instant, read

__all__ = ["LastRollout", "Model", "ModelUpdate", "router", "running_models"]

# Every scope is listed again about every 15 minutes. One that was not for this long, in s, is not
# watched any more: its cluster has another name in the config by now, or no daemon.
_UNWATCHED_S = 86400.0
# Rows that are decoded between two looks at the limit.
_STEP = 1000
# Without NUL, which PostgreSQL has no text with.
Text = Annotated[str | None, Query(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
_Place = Annotated[str, msgspec.Meta(pattern=r"^[^\x00]*$")]
# Cluster, namespace, name and uid, the order of model services.
_Order = tuple[str, str, str, str]
_FIRST = ("", "", "", "")


class LastRollout(msgspec.Struct, frozen=True, kw_only=True):
    """The last rollout of a model service; ``duration`` in s, null if its begin was not seen."""

    outcome: str
    at: float
    duration: float | None
    changed_by: str | None


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model service as it was last reported; ``since`` is when its version was rolled out."""

    cluster: str
    namespace: str
    kind: str
    name: str
    uid: str
    model: str | None
    version: str | None
    images: dict[str, str]
    revision: int | None
    since: float | None
    replicas_wanted: int | None
    replicas_ready: int | None
    traffic_percent: int | None
    last_rollout: LastRollout | None


class ModelUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """A model event: its CloudEvents attributes, and its data as on the topic."""

    id: str
    type: str
    source: str
    time: float
    data: msgspec.Raw


def router(store: Store) -> APIRouter:
    """Return the routes for the table that the cluster part writes."""
    routes = APIRouter(tags=["models"], dependencies=[Depends(known_parameters)])

    @routes.get(
        "/model",
        summary="Model services that run now, by cluster, namespace and name",
        response_class=Response,
        responses=listed(Model, "A page of model services"),
    )
    async def models(
        request: Request,
        *,
        key: Text = None,
        contains: Text = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        cursor: str | None = None,
    ) -> Response:
        after = (
            _FIRST
            if cursor is None
            else parse_cursor(cursor, tuple[_Place, _Place, _Place, _Place])
        )
        found = await read(
            store,
            lambda connection: running_models(
                connection, limit + 1, after=after, key=key, contains=contains
            ),
        )
        items = found[:limit]
        more = cursor_of(*_place_of(items[-1])) if len(found) > limit else None
        return item_list(request, items, more)

    @routes.get(
        "/model-update",
        summary="Model events, newest first",
        response_class=Response,
        responses=listed(ModelUpdate, "A page of model events"),
    )
    async def model_updates(
        request: Request,
        *,
        since: Instant = 0.0,
        key: Text = None,
        contains: Text = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        cursor: str | None = None,
    ) -> Response:
        before = 2**63 - 1 if cursor is None else parse_cursor(cursor, tuple[Number])[0]

        def select(connection: Connection) -> list[tuple[int, ModelUpdate]]:
            pattern = f"%{_escaped((contains or '').lower())}%"
            rows = connection.query(
                "SELECT seq, id, type, source, time, data FROM model_event"
                " WHERE time >= %s AND seq < %s AND %s IN ('', key)"
                " AND lower(data) LIKE %s ESCAPE '!' ORDER BY seq DESC LIMIT %s",
                (since, before, key or "", pattern, limit + 1),
            )
            return [
                (seq, ModelUpdate(id=id_, type=type_, source=source, time=time, data=_raw(data)))
                for seq, id_, type_, source, time, data in rows
            ]

        found = await read(store, select)
        more = cursor_of(found[limit - 1][0]) if len(found) > limit else None
        return item_list(request, [item for _, item in found[:limit]], more)

    return routes


_reported = msgspec.json.Decoder(Reported)


def running_models(
    connection: Connection,
    limit: int,
    *,
    after: _Order = _FIRST,
    key: str | None = None,
    contains: str | None = None,
) -> list[Model]:
    """Return services that are there, in their order, from ``after`` on."""
    found: list[Model] = []
    watched_since = time.time() - _UNWATCHED_S
    while len(found) < limit:
        rows = connection.query(
            "SELECT cluster, namespace, name, uid, state FROM cluster_state"
            " WHERE (cluster, namespace, name, uid) > (%s, %s, %s, %s)"
            " AND %s IN ('', namespace || '/' || name)"
            # Others are not watched any more.
            " AND EXISTS (SELECT 1 FROM cluster_scope AS scope"
            " WHERE scope.cluster = cluster_state.cluster AND scope.kind = cluster_state.kind"
            " AND scope.namespace IN ('', cluster_state.namespace) AND scope.listed_at > %s)"
            " ORDER BY cluster, namespace, name, uid LIMIT %s",
            (*after, key or "", watched_since, _STEP),
        )
        for cluster, _, _, uid, state in rows:
            model = _model(cluster, uid, _reported.decode(state))
            if model is not None and (contains is None or _matches(model, contains.lower())):
                found.append(model)
        if len(rows) < _STEP:
            break
        after = rows[-1][:4]
    return found[:limit]


def _place_of(model: Model) -> tuple[str, str, str, str]:
    return model.cluster, model.namespace, model.name, model.uid


def _model(cluster: str, uid: str, reported: Reported) -> Model | None:
    # A state without images and version is only that of a pod of a service.
    if reported.phase != "told" or not (reported.images or reported.version or reported.model):
        return None
    last = reported.rollout
    return Model(
        cluster=cluster,
        namespace=reported.namespace,
        kind=reported.kind,
        name=reported.name,
        uid=uid,
        model=reported.model,
        version=reported.version,
        images=reported.images,
        revision=reported.revision,
        since=reported.since,
        replicas_wanted=reported.replicas_wanted,
        replicas_ready=reported.replicas_ready,
        traffic_percent=reported.traffic_percent,
        last_rollout=None
        if last is None
        else LastRollout(
            outcome=last.outcome,
            at=last.at,
            duration=last.duration,
            changed_by=last.changed_by,
        ),
    )


def _matches(model: Model, text: str) -> bool:
    by = model.last_rollout.changed_by if model.last_rollout is not None else None
    shown = (model.model, model.version, model.name, model.namespace, model.cluster, model.kind, by)
    return any(text in (value or "").lower() for value in (*shown, *model.images.values()))


def _escaped(text: str) -> str:
    """Return a text for LIKE with the escape character !."""
    return text.replace("!", "!!").replace("%", "!%").replace("_", "!_")


def _raw(data: str) -> msgspec.Raw:
    return msgspec.Raw(data.encode())
