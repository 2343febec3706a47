"""The query parameters of a route: an unknown one is an error."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel

from monitor.validation import did_you_mean
from monitor.web.http.problems import Problem

__all__ = ["known_parameters"]


async def known_parameters(request: Request) -> None:
    """Refuse unknown parameters; a FastAPI dependency of a router.

    A misspelled filter must not return everything.
    """
    route = request.scope["route"]
    assert isinstance(route, APIRoute)
    known = list(_known(route))
    for name in request.query_params:
        if name in known:
            continue
        hint = did_you_mean(name, known) if known else "there are none here"
        problem = f"unknown parameter; {hint}"
        where = f"query.{name[:100]}"
        raise Problem(422, f"{where}: {problem}", problems=[{"where": where, "problem": problem}])


def _known(route: APIRoute) -> Iterator[str]:
    for parameter in route.dependant.query_params:
        kind = parameter.field_info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            # A model has several parameters.
            yield from (field.alias or name for name, field in kind.model_fields.items())
        else:
            yield parameter.alias
