"""Which producer checks which sites; pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

from monitor.errors import SettingError

__all__ = ["ordinal_id", "producers_needed", "shard"]

T = TypeVar("T")


def producers_needed(active: int, websites_per_container: int) -> int:
    """Return how many producers the active sites need."""
    return -(-active // websites_per_container)


def shard(active: Sequence[T], websites_per_container: int, producer: int) -> Sequence[T]:
    """Return the ``producer``-th range (from 1) of the active sites, which are in id order.

    Raises SettingError with path ``("id",)`` for an id beyond the last range.
    """
    needed = producers_needed(len(active), websites_per_container)
    if not 1 <= producer <= needed:
        problem = (
            f"there is no range {producer}: {len(active)} active sites by "
            f"{websites_per_container} need {needed} producers"
        )
        raise SettingError(("id",), problem)
    first = (producer - 1) * websites_per_container
    return active[first : first + websites_per_container]


def ordinal_id(pod_name: str) -> int | None:
    """Return the 1-based id that a StatefulSet's pod name ends with, as in ``probes-0``."""
    found = re.search(r"-(\d{1,9})$", pod_name)
    return int(found[1]) + 1 if found else None
