"""GET /healthz: whether the daemon lives, and how each part fares."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter
from pydantic import BaseModel

from monitor.part import Part

__all__ = ["router"]


class PartState(BaseModel):
    """How one part fares."""

    health: str
    summary: str


class Health(BaseModel):
    """How the daemon fares."""

    status: str
    parts: dict[str, PartState]


def router(parts: Mapping[str, Part]) -> APIRouter:
    """Return the routes over ``parts``."""
    routes = APIRouter(tags=["health"])

    @routes.get("/healthz", summary="Whether the daemon lives, with each part's state")
    async def healthz() -> Health:
        states = {name: part.state() for name, part in parts.items()}
        return Health(
            status="ok",
            parts={
                name: PartState(health=state.health, summary=state.summary)
                for name, state in states.items()
            },
        )

    return routes
