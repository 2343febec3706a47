"""Which faults happen when: pure, the same for the same seed.

Faults come in lanes that overlap as they like: for the daemons, and one for the servers and the
network. Within a lane they follow one another.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "CLOCK_STEP_S",
    "DAEMON_FAULTS",
    "WORLD_FAULTS",
    "Fault",
    "clock_eras",
    "daemon_lanes",
    "plan",
]

# Where the clock was once it never comes again, so no run of a job is due twice.
CLOCK_STEP_S = 3600.0


@dataclass(frozen=True, slots=True)
class Fault:
    """At ``at_s`` from the beginning, ``kind`` happens to ``target`` for ``lasts_s``."""

    at_s: float
    kind: str
    target: str
    lasts_s: float


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: how often (relative), how long (s), and whether it ends a process."""

    name: str
    weight: int
    lasts_s: tuple[float, float]
    lethal: bool = False
    needs: str = ""


DAEMON_FAULTS = (
    Kind("kill", 4, (0.0, 2.0), lethal=True),
    Kind("kill-starting", 3, (0.2, 2.5), lethal=True),
    Kind("kill-children", 1, (0.0, 0.0)),
    Kind("terminate", 2, (0.0, 1.5), lethal=True),
    Kind("stop", 2, (0.3, 4.0)),
    Kind("reload", 2, (0.0, 0.0)),
    Kind("reload-broken", 2, (0.0, 0.0)),
    Kind("clock", 2, (0.0, 0.0), needs="clock"),
    Kind("state-full", 1, (1.0, 4.0), needs="disk"),
    Kind("log-full", 1, (1.0, 4.0), needs="disk"),
    Kind("kill-while-full", 1, (1.0, 3.0), lethal=True, needs="disk"),
)
_KILLS = tuple(kind for kind in DAEMON_FAULTS if kind.name.startswith("kill"))
WORLD_FAULTS = (
    Kind("readers-cut", 3, (0.0, 0.0)),
    Kind("readers-hang", 2, (1.0, 5.0)),
    Kind("uploads-cut", 2, (0.0, 1.0)),
    Kind("uploads-hang", 1, (1.0, 5.0)),
    Kind("broker-swapped", 2, (0.0, 0.0)),
    Kind("broker-cut", 2, (0.0, 2.0)),
    Kind("broker-hangs", 1, (1.0, 4.0)),
    Kind("kubernetes-cut", 2, (0.0, 2.0)),
    Kind("kubernetes-lies", 3, (0.0, 0.0)),
    Kind("kubernetes-forgets", 2, (0.0, 0.0)),
    Kind("kubernetes-hangs", 1, (1.0, 5.0)),
    Kind("postgres-crash", 2, (0.0, 3.0), needs="servers"),
    Kind("postgres-cut", 2, (0.0, 2.0), needs="servers"),
    Kind("postgres-hangs", 2, (1.0, 6.0), needs="servers"),
    Kind("kafka-kill", 1, (0.0, 2.0), needs="servers"),
    Kind("kafka-stop", 1, (1.0, 6.0), needs="servers"),
    Kind("kafka-cut", 2, (0.0, 3.0), needs="servers"),
    Kind("kafka-hangs", 2, (1.0, 6.0), needs="servers"),
)
# The last part of the run ends no process: what it leaves behind in one shows.
_CALM_PART = 0.35
# How long a daemon works before the next fault, in a run that only kills.
_WORKS_S = (0.2, 2.0)


def plan(
    seed: int,
    duration_s: float,
    kinds: Sequence[Kind],
    *,
    targets: Sequence[str] = ("",),
    abilities: frozenset[str] = frozenset(),
    pause_s: tuple[float, float] = (0.3, 3.0),
    calm_part: float = _CALM_PART,
) -> list[Fault]:
    """Return one lane's faults in order, the lethal ones early.

    Each kind comes once before any comes again, in a random order; after that by weight. A kind
    whose need is not among the ``abilities`` never comes. ``at_s`` is when it is due, as long as
    none before it took longer than it lasts.
    """
    # Not the hash of a string: that is another one in each process.
    chance = random.Random(seed * 1_000_003 + len(kinds))
    possible = [kind for kind in kinds if not kind.needs or kind.needs in abilities]
    first = chance.sample(possible, len(possible))
    first.sort(key=lambda kind: not kind.lethal)
    faults: list[Fault] = []
    at_s = chance.uniform(*pause_s)
    while (due_s := round(at_s, 2)) < duration_s:
        calm = at_s > duration_s * (1 - calm_part)
        if first and not (calm and first[0].lethal):
            kind = first.pop(0)
        else:
            usual = [kind for kind in possible if not (calm and kind.lethal)]
            if not usual:
                break
            kind = chance.choices(usual, [kind.weight for kind in usual])[0]
        lasts_s = round(chance.uniform(*kind.lasts_s), 2)
        faults.append(Fault(due_s, kind.name, chance.choice(targets), lasts_s))
        at_s += lasts_s + chance.uniform(*pause_s)
    return faults


def daemon_lanes(
    seed: int,
    duration_s: float,
    targets: Sequence[str],
    abilities: frozenset[str],
    *,
    only_kill: bool,
) -> list[list[Fault]]:
    """Return the lanes for the daemons: one, or, with ``only_kill``, one each until the end."""
    if not only_kill:
        return [plan(seed, duration_s, DAEMON_FAULTS, targets=targets, abilities=abilities)]
    return [
        plan(
            seed + number * 1_000_000,
            duration_s,
            _KILLS,
            targets=[target],
            abilities=abilities,
            pause_s=_WORKS_S,
            calm_part=0.0,
        )
        for number, target in enumerate(targets)
    ]


def clock_eras(seed: int, count: int = 12) -> list[float]:
    """Return offsets of the clock in s, to be set one after another: there and back, none twice."""
    hours = [hour for hour in range(-(count // 2), count // 2 + 1) if hour]
    random.Random(seed).shuffle(hours)
    return [hour * CLOCK_STEP_S for hour in hours]
