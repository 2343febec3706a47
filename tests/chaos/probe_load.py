"""Sites that are checked: honest ones that count, and ones that lie however they can.

An honest site gives each request a status of its own, in turn, so that the results
distinguish every check, whatever the clocks say.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any, NamedTuple

from tests.chaos.findings import Finding
from tests.chaos.service import LIFE
from tests.probes.misbehaving import Misbehaving, answer
from tests.waiting import LIMIT_S

__all__ = ["ENDLESS_S", "CountingSite", "ProbeLoad", "Served", "owed", "results_finding"]

_HONEST, _LIARS_FROM = 12, 101
_FIRST_STATUS, _STATUSES = 400, 200
_LIES = (
    "silent", "drip", "reset", "empty", "garbage", "short", "broken-gzip", "bomb",
    "endless", "headers", "upgrade", "latin1", "redirect/30", "status/503", "status/204",
)  # fmt: skip
ENDLESS_S = 600.0
"""The timeout of checks whose results are to say what the site answered, however late."""


class Served(NamedTuple):
    """A request that a site answered: which of the daemon's lives made it, and when (monotonic)."""

    life: int
    at: float


class CountingSite(Misbehaving):
    """Knows when it answered which request: /job/JOB/LIFE."""

    def __init__(self) -> None:
        self.served: dict[int, list[Served]] = {}
        self._lock = threading.Lock()
        super().__init__()

    def _do_job(self, connection: socket.socket, argument: str) -> None:
        job, life = map(int, argument.partition("?")[0].split("/"))
        with self._lock:
            requests = self.served.setdefault(job, [])
            status = status_of(len(requests))
            requests.append(Served(life, time.monotonic()))
        connection.sendall(answer(status))


def status_of(number: int) -> int:
    """Return the status that a site answers its request with this number with."""
    return _FIRST_STATUS + number % _STATUSES


class ProbeLoad:
    """The sites, the jobs that check them, and what must have come of that."""

    def __init__(self, *, secret: str, interval_s: float = 0.5) -> None:
        self.honest = CountingSite()
        self.liar = Misbehaving()
        self._secret = secret
        self._interval_s = interval_s

    def jobs(self, *, active: bool = True) -> list[dict[str, Any]]:
        """Return the config's jobs."""
        shared: dict[str, Any] = {"active": active}
        honest = [
            {
                "id": number,
                "url": self.honest.url(f"/job/{number}/${{{LIFE}}}?token={self._secret}"),
                "interval": self._interval_s,
                "timeout": ENDLESS_S,
                "expected_status": [f"{_FIRST_STATUS}-{_FIRST_STATUS + _STATUSES - 1}"],
                "headers": {"x-key": self._secret},
                # For this the daemon has processes of its own.
                "body_regexp": "hello",
                **shared,
            }
            for number in range(1, _HONEST + 1)
        ]
        liars = [
            {
                "id": _LIARS_FROM + number,
                "url": self.liar.url(f"/{path}"),
                "interval": 2,
                "timeout": 1,
                **shared,
            }
            for number, path in enumerate(_LIES)
        ]
        others = [
            {"id": 201, "kind": "tcp", "url": f"tcp://127.0.0.1:{self.liar.port}"},
            {"id": 202, "kind": "tcp", "url": "tcp://127.0.0.1:9"},
            {"id": 203, "kind": "websocket", "url": f"ws://127.0.0.1:{self.liar.port}/garbage"},
        ]
        return [
            *honest,
            *liars,
            *({**job, "interval": 1, "timeout": 1, **shared} for job in others),
        ]

    def close(self) -> None:
        self.honest.close()
        self.liar.close()


def owed(requests: Sequence[Served], kept: Mapping[int, float]) -> list[int]:
    """Return the numbers of a job's requests whose results must be stored.

    ``kept`` says of each life up to when what was published then is known to be on the disk. A
    job's next check comes after the result before it was published.
    """
    numbers = []
    next_at: dict[int, float] = {}
    for number, (life, at) in reversed(list(enumerate(requests))):
        if next_at.get(life, inf) <= kept[life]:
            numbers.append(number)
        next_at[life] = at
    return numbers


def results_finding(
    served: Mapping[int, Sequence[Served]],
    stored: Mapping[int, Counter[tuple[int, int]]],
    *,
    ends: Sequence[float],
) -> Finding:
    """Compare requests served with results stored, for each job by life and status.

    ``ends`` are those of all lives but the last, which has published all that it began. Results
    come to the disk in the order of their publication. So whatever was published before one that
    is stored must be stored too, however long the machine takes to store it; and so must what was
    published very long before the end.
    """
    keys = {
        job: [(request.life, status_of(number)) for number, request in enumerate(requests)]
        for job, requests in served.items()
    }
    most = {job: Counter(each) for job, each in keys.items()}
    kept = {life: end - LIMIT_S for life, end in enumerate(ends)} | {len(ends): inf}
    for job, requests in served.items():
        found = stored.get(job, Counter())
        for key, (life, at) in zip(keys[job], requests, strict=True):
            # Only if all requests with a status are stored is this one certainly among them.
            if found[key] >= most[job][key]:
                kept[life] = max(kept[life], at)
    problems: list[str] = []
    owed_total = 0
    for job, requests in sorted(served.items()):
        due = Counter(keys[job][number] for number in owed(requests, kept))
        found = stored.get(job, Counter())
        owed_total += due.total()
        problems += [
            f"job {job}: {missing} of status {status} lost in life {life}"
            for (life, status), missing in sorted((due - found).items())
        ]
        problems += [
            f"job {job}: {more} of status {status} too many in life {life}"
            for (life, status), more in sorted((found - most[job]).items())
        ]
    return Finding(
        "checks are raw rows, each once, up to the last row of each life",
        f"{sum(map(len, served.values()))} checks served in {len(kept)} lives, {owed_total} of"
        f" them owed, {sum(found.total() for found in stored.values())} stored",
        tuple(problems),
    )
