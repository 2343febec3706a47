"""POST /db/init: drop and create the tables."""

from __future__ import annotations

import contextlib
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from monitor.store import Store, TablesError
from monitor.web.http.answers import json_answer
from monitor.web.http.app import admin_only
from monitor.web.http.parameters import known_parameters
from monitor.web.http.problems import from_database
from monitor.web.http.schemas import answer

__all__ = ["router"]


class Initialized(msgspec.Struct, frozen=True):
    """The result."""

    status: str


def router(store: Store) -> APIRouter:
    """Return the route."""
    routes = APIRouter(
        tags=["database"], dependencies=[Depends(admin_only), Depends(known_parameters)]
    )

    @routes.post(
        "/db/init",
        summary="Drop all tables with their rows, and create them again; for admins",
        response_class=Response,
        responses=answer(Initialized, "The tables are new and empty"),
    )
    async def initialize(
        request: Request, confirm: Annotated[Literal["drop"], Query()]
    ) -> Response:
        del confirm
        with from_database():
            # Also in an empty database, and over the tables of a newer version.
            with contextlib.suppress(TablesError):
                await store.migrate()
            await store.reset()
        return json_answer(request, Initialized("ok"))

    return routes
