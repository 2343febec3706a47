"""The query parameters of a route: one that it does not know is refused, not passed over."""

from __future__ import annotations

import difflib

from fastapi import Request
from fastapi.routing import APIRoute

from monitor.web.problems import Problem

__all__ = ["known_parameters"]


def known_parameters(request: Request) -> None:
    """Refuse what the route does not take, as a FastAPI dependency of its router.

    A filter that is spelt wrong must not give everything.
    """
    route = request.scope["route"]
    assert isinstance(route, APIRoute)
    known = [parameter.alias for parameter in route.dependant.query_params]
    for name in request.query_params:
        if name in known:
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else f"known here are {', '.join(known)}"
        problem = f"unknown parameter; {hint if known else 'there are none here'}"
        where = f"query.{name[:100]}"
        raise Problem(422, f"{where}: {problem}", problems=[{"where": where, "problem": problem}])
